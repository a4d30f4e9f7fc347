# SNCLR, ResNet-18, CIFAR-100, 200 epochs: the setting of a public comparison
# (pc-cp/Benchmark-Methods-For-MNN) in network, projector, predictor, optimizer,
# schedule, momentum, τ, K, Q and kNN. Its batch norm over eighths of a batch is left
# out; objective, attention and colors are as in the small recipe. Not run in full. The
# baselines take it with the variable RECIPE=r18_1xb256-200e_cifar100.
_base_ = "snclr_resnet-tiny_1xb128_cifar100.py"

model = dict(
    base_momentum=0.01,
    backbone=dict(
        _delete_=True, type="ResNet_CIFAR", depth=18, zero_init_residual=False
    ),
    neck=dict(in_channels=512, hid_channels=2048, out_channels=128, num_layers=3),
    head=dict(
        predictor=dict(in_channels=128, hid_channels=2048, out_channels=128),
        queue=dict(dim=128),
        attention=dict(in_channels=128),
    ),
)

views = [_base_.view_pipeline]
views[0][0].update(scale=32, crop_ratio_range=(0.2, 1.0))
data_preprocessor = dict(transforms=views)
train_dataloader = dict(batch_size=256)
val_cfg = dict(k=200, temperature=0.1)
test_cfg = val_cfg

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.06, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=200, val_interval=20)
auto_scale_lr = dict(base_batch_size=256)
