# SNCLR on ViT-S/16. Projector, predictor, τ and momentum are MoCo v3's for ViT, Q and K
# the authors' (start.sh of github.com/ChongjianGE/SNCLR).
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
