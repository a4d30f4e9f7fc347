# SimCLR-type with soft neighbors: one encoder, no predictor, a gradient through both
# views. MMPretrain's SimCLR gives its head similarities only, so the algorithm class is
# SimSiam: two views, symmetrised. How it differs from NT-Xent: see docs/mixing.md.
_base_ = [
    "mmpretrain::simclr/simclr_resnet50_16xb256-coslr-200e_in1k.py",
    "../_base_/datasets/imagenet_test.py",
]

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [dict(type="NeighborQueueHook")]
model = dict(
    type="SimSiam",
    head=dict(
        _delete_=True,
        type="SoftNeighborHead",
        predictor=None,
        detach_keys=False,
        # Q and K as in snclr_r50_8xb256.py, τ SimCLR's; not tuned.
        queue=dict(type="NeighborQueue", length=65536, dim=128),
        num_neighbors=30,
        temperature={{_base_.model.head.temperature}},
    ),
)
