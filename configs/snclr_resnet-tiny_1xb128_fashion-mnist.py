# SNCLR on Fashion-MNIST, small enough for two CPU cores.
_base_ = [
    "_base_/models/snclr_resnet-tiny.py",
    "_base_/datasets/fashion-mnist.py",
    "_base_/default_runtime.py",
]

optim_wrapper = dict(
    type="AmpOptimWrapper",  # off on CPUs without instructions for bfloat16
    dtype="bfloat16",
    loss_scale=1.0,
    optimizer=dict(type="AdamW", lr=1e-2, weight_decay=1e-2),
)
param_scheduler = [
    # In iterations, over the cosine's start: also a run of one epoch works.
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=1)
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=5, max_keep_ckpts=2)
)
auto_scale_lr = dict(base_batch_size=128)
