# SNCLR on a ResNet-18 for images of 32 to 96 px: 3 x 3 stem, no max-pooling. Widths,
# momentum and τ as in solo-learn's MoCo v3 for CIFAR; objective and attention as in the
# Fashion-MNIST recipe; Q and K are our choice; not tuned.
model = dict(
    type="SNCLR",
    base_momentum=0.01,
    backbone=dict(
        type="ResNet_CIFAR",
        depth=18,
        norm_cfg=dict(type="SyncBN"),
        zero_init_residual=False,
    ),
    neck=dict(  # projector, y
        type="NonLinearNeck",
        in_channels=512,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_last_bn_affine=False,
    ),
    head=dict(
        type="SoftNeighborHead",
        predictor=dict(  # z
            type="NonLinearNeck",
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_last_bn=False,
            with_avg_pool=False,
        ),
        queue=dict(type="NeighborQueue", length=16384, dim=256),
        attention=dict(
            type="CrossAttentionNeck", in_channels=256, projection="identity"
        ),
        num_neighbors=10,
        temperature=0.2,
        objective="sum_of_logs",
    ),
)
