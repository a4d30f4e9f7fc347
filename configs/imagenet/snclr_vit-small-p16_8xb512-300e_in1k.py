# SNCLR, ViT-S/16, ImageNet, 300 epochs, 8 GPUs x 512 images. Projector, predictor, τ,
# momentum, views, AdamW and schedule are MoCo v3's for ViT, Q and K the authors'
# (start.sh of github.com/ChongjianGE/SNCLR).
_base_ = ["../_base_/datasets/imagenet_mocov3.py", "../_base_/default_runtime.py"]

temperature = 0.2
model = dict(
    type="SNCLR",
    base_momentum=0.01,  # 0.99
    backbone=dict(
        type="MoCoV3ViT",
        arch="mocov3-small",
        img_size=224,
        patch_size=16,
        stop_grad_conv1=True,
    ),
    neck=dict(  # projector, y
        type="NonLinearNeck",
        in_channels=384,
        hid_channels=4096,
        out_channels=256,
        num_layers=3,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=False,
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
            with_last_bn=True,
            with_last_bn_affine=False,
            with_last_bias=False,
            with_avg_pool=False,
        ),
        queue=dict(type="NeighborQueue", length=128000, dim=256),
        attention=dict(type="CrossAttentionNeck", in_channels=256),
        num_neighbors=30,
        temperature=temperature,
        loss_weight=2 * temperature,  # MoCo v3's factor, which its LR is tuned with
    ),
)
# MoCoV3ViT fixes its position embeddings only after the model is distributed.
find_unused_parameters = True

views = _base_.views
views[0].crop.crop_ratio_range = views[1].crop.crop_ratio_range = (0.08, 1.0)
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms = [list(view.values()) for view in views]
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(
    type="AmpOptimWrapper",  # float16
    loss_scale="dynamic",
    # LR 1.5e-4 x batch / 256.
    optimizer=dict(type="AdamW", lr=2.4e-3, weight_decay=0.1, fused=True),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=40, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=40, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300, val_interval=10)

# lr is for this global batch; --auto-scale-lr adapts it to another.
auto_scale_lr = dict(base_batch_size=4096)
