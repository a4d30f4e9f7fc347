# A 0.7 M-parameter ResNet for 28 x 28 images that a CPU trains in minutes: ResNet-18's
# first three stages at half the width, with a stride in each.
norm_cfg = dict(type="BN1d")
model = dict(
    type="SNCLR",
    base_momentum=0.05,  # 0.95: a run of minutes has few steps to average over
    channels_last=True,  # faster on CPUs, see docs/benchmarks
    backbone=dict(
        type="ResNet_CIFAR",
        depth=18,
        num_stages=3,
        stem_channels=32,
        base_channels=32,
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
    ),
    neck=dict(  # projector, y
        type="NonLinearNeck",
        in_channels=128,
        hid_channels=512,
        out_channels=64,
        num_layers=2,
        with_last_bn_affine=False,
        norm_cfg=norm_cfg,
    ),
    head=dict(
        type="SoftNeighborHead",
        predictor=dict(  # z
            type="NonLinearNeck",
            in_channels=64,
            hid_channels=512,
            out_channels=64,
            num_layers=2,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=norm_cfg,
        ),
        queue=dict(type="NeighborQueue", length=4096, dim=64),
        attention=dict(
            type="CrossAttentionNeck", in_channels=64, projection="identity"
        ),
        num_neighbors=30,
        temperature=0.5,
        objective="sum_of_logs",
    ),
)
