# NNCLR without a momentum encoder, as in its paper (Dwibedi et al., ICCV 2021): the
# neighbors are past projections of the same encoder. Widths, Q, τ and the symmetric
# loss are the paper's, views and 200 epochs those of MMPretrain's SimCLR, LARS with 0.3
# x batch / 256 both's.
_base_ = [
    "mmpretrain::simclr/simclr_resnet50_16xb256-coslr-200e_in1k.py",
    "../_base_/datasets/imagenet_test.py",
]

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [dict(type="NeighborQueueHook")]
model = dict(
    type="SimSiam",
    neck=dict(out_channels=256, num_layers=3),
    head=dict(
        _delete_=True,
        type="NearestNeighborHead",
        predictor=dict(
            type="NonLinearNeck",
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            with_last_bn=False,
            with_avg_pool=False,
        ),
        queue=dict(type="NeighborQueue", length=98304, dim=256),
        temperature=0.1,
        symmetric=True,
    ),
)
