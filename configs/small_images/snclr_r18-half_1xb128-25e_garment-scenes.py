# SNCLR, ResNet-18 at half width, on the unlabeled pictures of
# tools/data/prepare_garment_scenes.py; for two CPU cores.
_base_ = ["../_base_/small_images.py", "../_base_/default_runtime.py"]

model = dict(
    base_momentum=0.05,
    channels_last=True,
    backbone=dict(
        _delete_=True, type="ResNet", depth=18, stem_channels=32, base_channels=32
    ),
    neck=dict(in_channels=256, hid_channels=512, out_channels=64),
    head=dict(
        predictor=dict(in_channels=64, hid_channels=512, out_channels=64),
        queue=dict(length=2048, dim=64),
        attention=dict(in_channels=64),
        temperature=0.5,
    ),
)

views = _base_.views
views[0].crop.crop_ratio_range = views[1].crop.crop_ratio_range = (0.2, 1.0)
# Else the colors tell pictures apart.
views[0].jitter.transforms[0].hue = views[1].jitter.transforms[0].hue = 0.5
views[0].gray.prob = views[1].gray.prob = 0.5
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms = [list(view.values()) for view in views]
data_root = "data/garment-scenes/unlabeled"
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    dataset=dict(type="ImageFolder", data_root=data_root, pipeline=train_pipeline),
)
# kNN needs labels, so nothing is measured: the test part says which images to extract
# features of, and how they are prepared.
val_cfg = val_dataloader = val_evaluator = None
test_dataloader = dict(
    num_workers=2,
    dataset=dict(
        type="ImageFolder",
        data_root=data_root,
        pipeline=[dict(type="LoadImage"), dict(type="PackInputs")],
    ),
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
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=25)
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=5, max_keep_ckpts=1)
)
auto_scale_lr = dict(base_batch_size=128)
