# Multi-crop: six views of 96 px beside the two of 224 px. Their number, size, crop
# scale and blur are SwAV's, their colors MoCo v3's as those of the large views.
#     _base_ = [RECIPE, "_base_/variants/multi_crop.py"]
#     train_pipeline = _base_.train_pipeline
#     train_pipeline[1].num_views.append(_base_.num_local_views)
#     train_pipeline[1].transforms.append(_base_.local_view)
#     train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
num_local_views = 6
local_view = [
    dict(
        type="RandomResizedCrop",
        scale=96,
        crop_ratio_range=(0.05, 0.14),
        backend="pillow",
    ),
    dict(
        type="RandomApply",
        transforms=[
            dict(
                type="ColorJitter",
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                hue=0.1,
            )
        ],
        prob=0.8,
    ),
    dict(
        type="RandomGrayscale",
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989),
    ),
    dict(
        type="GaussianBlur",
        magnitude_range=(0.1, 2.0),
        magnitude_std="inf",
        prob=0.5,
    ),
    dict(type="RandomFlip", prob=0.5),
]
