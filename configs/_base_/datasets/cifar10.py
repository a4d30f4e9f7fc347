# CIFAR-10, 32 px. MMPretrain downloads it where data_root is an empty folder.
_base_ = "small_images.py"

data_root = "data/cifar10"
data_preprocessor = dict(
    type="SelfSupDataPreprocessor",
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,  # these images are RGB already
)


def _set_views(multi_view):
    for crop, _, gray, *_ in multi_view.transforms:
        crop.scale = 32
        gray.channel_weights = (0.2989, 0.587, 0.114)  # RGB


train_pipeline = _base_.train_pipeline
_set_views(train_pipeline[1])
test_pipeline = [dict(type="LoadImage"), dict(type="PackInputs")]

train_dataloader = dict(
    num_workers=4,
    dataset=dict(
        type="CIFAR10", data_root=data_root, split="train", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        type="CIFAR10",
        data_root=data_root,
        split="test",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_cfg = dict(
    bank_dataloader=dict(
        num_workers=2,
        dataset=dict(
            type="CIFAR10", data_root=data_root, split="train", pipeline=test_pipeline
        ),
    )
)
test_dataloader = val_dataloader
test_cfg = val_cfg
