# 100 epochs, augmented on the GPU: the workers decode and crop, the data preprocessor
# does the rest of the same transforms. See docs/data.md.
_base_ = "snclr_r50_8xb256-100e_in1k.py"


def without_crop(crop, **others):
    return list(others.values())


data_preprocessor = dict(
    type="AugmentDataPreprocessor",
    transforms=[without_crop(**view) for view in _base_.views],
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms = [
    [dict(view.crop, type="FastRandomResizedCrop")] for view in _base_.views
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
