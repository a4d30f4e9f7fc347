# Tiny-ImageNet, or any images of about 64 px in train/<class>/ and val/<class>/.
# Statistics are ImageNet's. Training reads no labels.
_base_ = "small_images.py"

data_root = "data/tiny-imagenet/"
data_preprocessor = dict(
    type="SelfSupDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeEdge", scale=64, edge="short"),
    dict(type="CenterCrop", crop_size=64),
    dict(type="PackInputs"),
]

train_dataloader = dict(
    num_workers=8,
    dataset=dict(
        type="ImageFolder",
        data_root=data_root + "train",
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=4,
    dataset=dict(
        type="CustomDataset", data_root=data_root + "val", pipeline=test_pipeline
    ),
)
val_cfg = dict(
    bank_dataloader=dict(
        num_workers=4,
        dataset=dict(
            type="CustomDataset", data_root=data_root + "train", pipeline=test_pipeline
        ),
    )
)
test_dataloader = val_dataloader
test_cfg = val_cfg
