# ImageNet with MoCo v3's two views for ResNet-50, unlabeled in training; weighted kNN
# on the validation images.
_base_ = "imagenet_test.py"

data_preprocessor = dict(
    type="SelfSupDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    non_blocking=True,
)


def make_view(blur, solarize):
    return dict(
        crop=dict(
            type="RandomResizedCrop",
            scale=224,
            crop_ratio_range=(0.2, 1.0),
            backend="pillow",
        ),
        jitter=dict(
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
        gray=dict(
            type="RandomGrayscale",
            prob=0.2,
            keep_channels=True,
            channel_weights=(0.114, 0.587, 0.2989),  # BGR
        ),
        blur=dict(
            type="GaussianBlur",
            magnitude_range=(0.1, 2.0),
            magnitude_std="inf",
            prob=blur,
        ),
        solarize=dict(type="Solarize", thr=128, prob=solarize),
        flip=dict(type="RandomFlip", prob=0.5),
    )


# By name, for the configs that change one of them.
views = [make_view(blur=1.0, solarize=0.0), make_view(blur=0.1, solarize=0.2)]
weak_view = [views[1]["crop"], views[1]["flip"]]  # of targets that should be weak
train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="MultiView",
        num_views=[1, 1],
        transforms=[list(view.values()) for view in views],
    ),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    # Labels are not needed, so this reads any folder: own images need data_root alone.
    dataset=dict(
        type="ImageFolder", data_root="data/imagenet/train", pipeline=train_pipeline
    ),
)
val_dataloader = _base_.test_dataloader
val_evaluator = _base_.test_evaluator
val_cfg = dict(_base_.test_cfg, type="KNNValLoop")
