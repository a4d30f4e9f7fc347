# Tiny-ImageNet, or any images of about 64 px in train/<class>/ and val/<class>/.
# Statistics are ImageNet's. Training reads no labels.
data_root = "data/tiny-imagenet/"
data_preprocessor = dict(
    type="SelfSupDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)


def _view(solarize):
    # As for CIFAR: MoCo v3's colors, no blur.
    return [
        dict(type="RandomResizedCrop", scale=64, crop_ratio_range=(0.08, 1.0)),
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
        dict(type="Solarize", thr=128, prob=solarize),
        dict(type="RandomFlip", prob=0.5),
    ]


train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="MultiView",
        num_views=[1, 1],
        transforms=[_view(solarize=0.0), _view(solarize=0.2)],
    ),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeEdge", scale=64, edge="short"),
    dict(type="CenterCrop", crop_size=64),
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
    dataset=dict(
        type="ImageFolder", data_root=data_root + "train", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="CustomDataset", data_root=data_root + "val", pipeline=test_pipeline
    ),
)
val_evaluator = dict(type="Accuracy", topk=(1, 5), prefix="knn")
val_cfg = dict(
    type="KNNValLoop",
    k=20,
    temperature=0.07,
    bank_dataloader=dict(
        batch_size=256,
        num_workers=4,
        sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="CustomDataset", data_root=data_root + "train", pipeline=test_pipeline
        ),
    ),
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(val_cfg, type="KNNTestLoop")
