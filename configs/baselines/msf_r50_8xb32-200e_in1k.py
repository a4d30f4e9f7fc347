# MSF (Koohpayegani et al., ICCV 2021), ResNet-50, ImageNet, 200 epochs; not run. The
# values are those of the authors' code, but the momentum, which is 0.99 throughout
# there and rises to 1 here, and its batch norm, which shuffles images over GPUs.
_base_ = "../imagenet/snclr_r50_8xb256-200e_in1k.py"

views = _base_.views
views[0].blur.prob = 0.5
views[0].jitter.transforms[0].saturation = 0.4
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms = [list(views[0].values()), _base_.weak_view]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))

model = dict(
    one_directional=True,
    neck=dict(
        out_channels=512,
        with_bias=True,
        with_last_bn=False,
        with_last_bias=True,
    ),
    head=dict(
        _delete_=True,
        type="MeanShiftHead",
        predictor=dict(
            type="NonLinearNeck",
            in_channels=512,
            hid_channels=4096,
            out_channels=512,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_last_bias=True,
            with_avg_pool=False,
        ),
        # 2.1 GB on each GPU, and in each checkpoint; the authors also use 128,000.
        queue=dict(type="NeighborQueue", length=1024000, dim=512),
        num_neighbors=4,  # and the key: 5, as they count
    ),
)

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(_delete_=True),
)
param_scheduler = [dict(type="CosineAnnealingLR", convert_to_iter_based=True)]

# lr is for this global batch; --auto-scale-lr adapts it to another.
auto_scale_lr = dict(base_batch_size=256)
