# NNBYOL: stock BYOL whose keys are replaced by their nearest neighbors, which may
# collapse; not run, not tuned.
_base_ = [
    "mmpretrain::byol/byol_resnet50_16xb256-coslr-200e_in1k.py",
    "../_base_/datasets/imagenet_test.py",
]

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [dict(type="NeighborQueueHook")]
model = dict(
    head=dict(
        _delete_=True,
        type="NeighborKeys",
        head={{_base_.model.head}},
        queue=dict(type="NeighborQueue", length=65536, dim=256),
    )
)
