# CIFAR-10, 32 px. MMPretrain downloads it where data_root is an empty folder.
data_root = "data/cifar10"
data_preprocessor = dict(
    type="SelfSupDataPreprocessor",
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,  # these images are RGB already
)


def _view(solarize):
    # solo-learn's for CIFAR: MoCo v3's colors, no blur.
    return [
        dict(type="RandomResizedCrop", scale=32, crop_ratio_range=(0.08, 1.0)),
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
            channel_weights=(0.2989, 0.587, 0.114),
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
test_pipeline = [dict(type="LoadImage"), dict(type="PackInputs")]

train_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="CIFAR10", data_root=data_root, split="train", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="CIFAR10",
        data_root=data_root,
        split="test",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type="Accuracy", topk=(1, 5), prefix="knn")
val_cfg = dict(
    type="KNNValLoop",
    k=20,
    temperature=0.07,
    bank_dataloader=dict(
        batch_size=256,
        num_workers=2,
        sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="CIFAR10", data_root=data_root, split="train", pipeline=test_pipeline
        ),
    ),
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(val_cfg, type="KNNTestLoop")
