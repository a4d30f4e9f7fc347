# SNCLR, torchvision's ResNet-18, on one's own photographs, one GPU or CPU; see
# docs/quickstart.md. A starting point, not tuned:
#   SIZE=96 python tools/train.py .../snclr_r18_1xb128_image-folder.py --data-root DIR
# SIZE is that of the training images in pixels, 96 to 224; 128 by default.
_base_ = ["_base_/small_images.py", "_base_/default_runtime.py"]

size = int("{{$SIZE:128}}")
data_root = "data/images"

model = dict(
    channels_last=True,  # faster, on CPUs too
    backbone=dict(
        _delete_=True,
        type="ResNet",
        depth=18,
        norm_cfg=dict(type="SyncBN"),
        zero_init_residual=False,
    ),
    neck=dict(hid_channels=2048, out_channels=128),
    head=dict(
        predictor=dict(in_channels=128, hid_channels=2048, out_channels=128),
        queue=dict(length=8192, dim=128),
        attention=dict(in_channels=128),
    ),
)

views = _base_.views
views[0].crop.scale = views[1].crop.scale = size
views[0].crop.crop_ratio_range = views[1].crop.crop_ratio_range = (0.2, 1.0)
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms = [list(view.values()) for view in views]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeEdge", scale=size * 8 // 7, edge="short"),
    dict(type="CenterCrop", crop_size=size),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(type="ImageFolder", data_root=data_root, pipeline=train_pipeline),
)
# kNN needs labels, so nothing is measured, unless there is --val-data-root: the test
# part says how an image is prepared, for whatever extracts features.
val_cfg = val_dataloader = val_evaluator = None
test_dataloader = dict(
    num_workers=4,
    dataset=dict(type="ImageFolder", data_root=data_root, pipeline=test_pipeline),
)
test_cfg = dict(_delete_=True)
test_evaluator = []

optim_wrapper = dict(
    type="AmpOptimWrapper",  # off on CPUs without instructions for bfloat16
    dtype="bfloat16",
    loss_scale=1.0,
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=1e-2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=200)
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=20, max_keep_ckpts=2)
)
# lr is for this global batch, and follows the actual one.
auto_scale_lr = dict(base_batch_size=128, enable=True)
