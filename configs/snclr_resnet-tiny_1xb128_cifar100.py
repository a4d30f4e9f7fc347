# SNCLR on CIFAR-100 for two CPU cores: network, batch and optimizer as on
# Fashion-MNIST. K and τ are those of a public comparison
# (pc-cp/Benchmark-Methods-For-MNN), colors MoCo v3's; not tuned. Whole batches are
# augmented on the training device. The baselines take it with the variable
# RECIPE=resnet-tiny_1xb128_cifar100.
_base_ = "snclr_resnet-tiny_1xb128_fashion-mnist.py"

model = dict(head=dict(num_neighbors=5, temperature=0.2))
view_pipeline = [
    # 20 px cost 0.4 of the images' own 32 px; the test sees whole images.
    dict(type="RandomResizedCrop", scale=20, crop_ratio_range=(0.3, 1.0)),
    dict(type="RandomFlip", prob=0.5),
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
        channel_weights=(0.2989, 0.587, 0.114),  # RGB
    ),
]
data_preprocessor = dict(
    type="AugmentDataPreprocessor",
    mean=[129.304, 124.070, 112.434],
    std=[68.170, 65.392, 70.418],
    to_rgb=False,  # they are RGB already
    transforms=[view_pipeline],
    num_views=[2],
    non_blocking=True,
)
train_pipeline = [dict(type="LoadImage"), dict(type="PackInputs")]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="Resize", scale=(32, 32)),
    dict(type="PackInputs"),
]
# MMPretrain downloads it where data_root is an empty folder.
data_root = "data/cifar100"
train_dataloader = dict(
    dataset=dict(type="CIFAR100", data_root=data_root, pipeline=train_pipeline)
)
test_dataloader = dict(
    dataset=dict(type="CIFAR100", data_root=data_root, pipeline=test_pipeline)
)
test_cfg = dict(
    bank_dataloader=dict(
        dataset=dict(type="CIFAR100", data_root=data_root, pipeline=test_pipeline)
    )
)
val_dataloader = test_dataloader
val_cfg = test_cfg
