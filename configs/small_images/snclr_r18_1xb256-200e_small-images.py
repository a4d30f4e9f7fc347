# SNCLR, ResNet-18, images of 32 to 96 px, 200 epochs, one GPU; a starting point, not
# tuned. The variable DATASET names one of the data sets below:
#   DATASET=stl10 python tools/train.py .../snclr_r18_1xb256-200e_small-images.py
_base_ = ["../_base_/small_images.py", "../_base_/default_runtime.py"]


def cifar(classes, mean, std):
    """MMPretrain downloads it where data_root is an empty folder."""
    train = dict(
        type=f"CIFAR{classes}", data_root=f"data/cifar{classes}", split="train"
    )
    return dict(
        size=32,
        preprocessor=dict(mean=mean, std=std, to_rgb=False),  # they are RGB already
        channel_weights=(0.2989, 0.587, 0.114),  # RGB
        train=train,
        bank=train,
        test=dict(train, split="test", test_mode=True),
    )


def folders(size, root, train, bank, test, **others):
    """Folders of images; bank and test have a sub-folder per class."""
    return dict(
        size=size,
        preprocessor=dict(  # ImageNet's
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
        ),
        channel_weights=(0.114, 0.587, 0.2989),  # BGR
        train=dict(type="ImageFolder", data_root=f"{root}/{train}"),
        bank=dict(type="CustomDataset", data_root=f"{root}/{bank}"),
        test=dict(type="CustomDataset", data_root=f"{root}/{test}"),
        **others,
    )


def choose(name):
    table = {
        "cifar10": cifar(10, [125.307, 122.961, 113.8575], [51.5865, 50.847, 51.255]),
        "cifar100": cifar(100, [129.304, 124.070, 112.434], [68.170, 65.392, 70.418]),
        # Any images of about 64 px. Tiny-ImageNet's own val has to be sorted first.
        "tiny-imagenet": folders(64, "data/tiny-imagenet", "train", "train", "val"),
        # Trains on the 100,000 unlabeled images; MMPretrain has no class for it:
        # tools/data/prepare_stl10.py makes image folders of its files.
        "stl10": folders(
            96,
            "data/stl10",
            *("unlabeled", "train", "test"),
            # A stride in each stage: 96 px cost as much as 48 px would without the
            # first.
            backbone=dict(strides=(2, 2, 2, 2)),
        ),
    }
    if name not in table:
        raise ValueError(f"DATASET={name} is unknown: use one of {', '.join(table)}.")
    return table[name]


chosen = choose("{{$DATASET:tiny-imagenet}}")
work_dir = "work_dirs/snclr_r18_1xb256-200e_{{$DATASET:tiny-imagenet}}"

model = dict(backbone=chosen.get("backbone", {}))
data_preprocessor = dict(non_blocking=True, **chosen["preprocessor"])
views = _base_.views
views[0].crop.scale = views[1].crop.scale = chosen["size"]
views[0].gray.channel_weights = chosen["channel_weights"]
views[1].gray.channel_weights = chosen["channel_weights"]
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms = [list(view.values()) for view in views]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeEdge", scale=chosen["size"], edge="short"),
    dict(type="CenterCrop", crop_size=chosen["size"]),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    num_workers=8, dataset=dict(chosen["train"], pipeline=train_pipeline)
)
test_dataloader = dict(
    num_workers=4, dataset=dict(chosen["test"], pipeline=test_pipeline)
)
test_cfg = dict(
    bank_dataloader=dict(
        num_workers=4, dataset=dict(chosen["bank"], pipeline=test_pipeline)
    )
)
val_dataloader = test_dataloader
val_cfg = test_cfg
del chosen

# lightly's CIFAR-10 benchmark: LR 0.06 x batch / 128. The 10 epochs of warm-up are MoCo
# v3's.
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.12, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=10, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=200, val_interval=10)

# lr is for this global batch; --auto-scale-lr adapts it to another.
auto_scale_lr = dict(base_batch_size=256)
