# lightly's CIFAR-10 benchmark: base LR 0.06 x batch / 128; not tuned for SNCLR. The 10
# epochs of warm-up are MoCo v3's.
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.12, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        T_max=190,
        by_epoch=True,
        begin=10,
        end=200,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=200, val_interval=10)

# lr is for this global batch; --auto-scale-lr adapts it to another.
auto_scale_lr = dict(base_batch_size=256)
