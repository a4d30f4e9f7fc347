# SNCLR on ResNet-50. The paper says "MoCo v3's set-up": projector, predictor, τ and
# momentum are MoCo v3's for ResNet-50.
temperature = 1.0
model = dict(
    type="SNCLR",
    base_momentum=0.01,  # 0.99 for 100 to 300 epochs; 0.004 for 800 and more
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
