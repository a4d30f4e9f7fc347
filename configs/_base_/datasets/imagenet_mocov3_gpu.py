# MoCo v3's two views, augmented on the GPU: the workers decode and crop, the data
# preprocessor does the rest of the same transforms. See docs/data.md.
_base_ = "imagenet_mocov3.py"


def _crop(view):
    return [dict(view[0], type="FastRandomResizedCrop")]


train_pipeline = _base_.train_pipeline
views = train_pipeline[1].transforms
data_preprocessor = dict(
    type="AugmentDataPreprocessor",
    transforms=[view[1:] for view in views],
    non_blocking=True,
)
train_pipeline[1].transforms = [_crop(view) for view in views]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
del views
