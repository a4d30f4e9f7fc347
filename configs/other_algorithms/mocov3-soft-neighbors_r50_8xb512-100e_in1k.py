# Stock MoCo v3 with soft neighbors: MMPretrain's algorithm, schedule and data.
_base_ = [
    "mmpretrain::mocov3/mocov3_resnet50_8xb512-amp-coslr-100e_in1k.py",
    "../_base_/datasets/imagenet_test.py",
]

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [dict(type="NeighborQueueHook")]
model = dict(
    head=dict(
        _delete_=True,
        type="SoftNeighborHead",
        predictor={{_base_.model.head.predictor}},
        # Q and K as in snclr_r50_8xb256.py, τ and the factor MoCo v3's; not tuned.
        queue=dict(type="NeighborQueue", length=65536, dim=256),
        num_neighbors=30,
        temperature={{_base_.model.head.temperature}},
        loss_weight={{_base_.model.head.loss.loss_weight}},
    )
)
