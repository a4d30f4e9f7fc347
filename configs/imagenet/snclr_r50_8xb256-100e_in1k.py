# SNCLR, ResNet-50, ImageNet, 100 epochs, 8 GPUs x 256 images. The paper says "MoCo v3's
# set-up": projector, predictor, τ, momentum, views, LARS and schedule are MoCo v3's for
# ResNet-50 and 100 epochs.
_base_ = ["../_base_/datasets/imagenet_mocov3.py", "../_base_/default_runtime.py"]

temperature = 1.0
model = dict(
    type="SNCLR",
    base_momentum=0.01,  # 0.99
    backbone=dict(
        type="ResNet", depth=50, norm_cfg=dict(type="SyncBN"), zero_init_residual=False
    ),
    neck=dict(  # projector, y
        type="NonLinearNeck",
        in_channels=2048,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=True,
    ),
    head=dict(
        type="SoftNeighborHead",
        predictor=dict(  # z
            type="NonLinearNeck",
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=False,
            with_last_bn=False,
            with_last_bn_affine=False,
            with_last_bias=False,
            with_avg_pool=False,
        ),
        # Q and K for ResNet-50 are not published; 30 is the released ViT-S value.
        queue=dict(type="NeighborQueue", length=65536, dim=256),
        attention=dict(type="CrossAttentionNeck", in_channels=256),
        num_neighbors=30,
        temperature=temperature,
        loss_weight=2 * temperature,  # MoCo v3's factor, which its LR is tuned with
    ),
)

optim_wrapper = dict(
    type="AmpOptimWrapper",  # float16
    loss_scale="dynamic",
    # LR 0.6 x batch / 256.
    optimizer=dict(type="ForeachLARS", lr=4.8, weight_decay=1e-6, momentum=0.9),
    paramwise_cfg=dict(
        custom_keys={
            "bn": dict(decay_mult=0, lars_exclude=True),
            "bias": dict(decay_mult=0, lars_exclude=True),
            # The batch norm of ResNet's shortcuts.
            "downsample.1": dict(decay_mult=0, lars_exclude=True),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=10, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=10)

# lr is for this global batch; --auto-scale-lr adapts it to another.
auto_scale_lr = dict(base_batch_size=2048)
