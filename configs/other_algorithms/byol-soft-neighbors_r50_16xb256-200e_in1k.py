# Stock BYOL with soft neighbors: its projector, predictor, target network, schedule and
# data; contrastive where BYOL only attracts.
_base_ = [
    "mmpretrain::byol/byol_resnet50_16xb256-coslr-200e_in1k.py",
    "../_base_/datasets/imagenet_test.py",
]

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [dict(type="NeighborQueueHook")]
model = dict(
    head=dict(
        _delete_=True,
        type="SoftNeighborHead",
        predictor={{_base_.model.head.predictor}},
        # Q, K and τ as in snclr_r50_8xb256.py; not tuned for BYOL.
        queue=dict(type="NeighborQueue", length=65536, dim=256),
        num_neighbors=30,
        temperature=1.0,
    )
)
