# Stock SimSiam with soft neighbors: no momentum branch; the keys are the other view's
# projections without gradient.
_base_ = [
    "mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py",
    "../_base_/datasets/imagenet_test.py",
]

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [
    dict(  # SimSiam's own: the predictor keeps its learning rate
        type="SimSiamHook", priority="HIGH", fix_pred_lr=True, lr={{_base_.lr}}
    ),
    dict(type="NeighborQueueHook"),
]
model = dict(
    head=dict(
        _delete_=True,
        type="SoftNeighborHead",
        predictor={{_base_.model.head.predictor}},
        # SimSiam's features are 2048 wide: 134 MB. Not tuned.
        queue=dict(type="NeighborQueue", length=16384, dim=2048),
        num_neighbors=30,
        # τ = 1 keeps the gradient's scale near that of the stock loss, -cos, which
        # SGD's learning rate is tuned with.
        temperature=1.0,
    )
)
