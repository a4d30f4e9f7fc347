# Linear probe: SGD without weight decay, cosine, 100 epochs.
optim_wrapper = dict(
    constructor="MultiLinearOptimWrapperConstructor",
    # 0.1 x batch / 256, and times each of model.head.lr_factors.
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=10)
auto_scale_lr = dict(base_batch_size=256)
