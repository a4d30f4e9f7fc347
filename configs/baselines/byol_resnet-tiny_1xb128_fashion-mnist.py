# BYOL, MMPretrain's own: no negatives; else as the SNCLR config.
_base_ = "../snclr_{{$RECIPE:resnet-tiny_1xb128_fashion-mnist}}.py"

work_dir = "work_dirs/byol_{{$RECIPE:resnet-tiny_1xb128_fashion-mnist}}"

model = dict(
    _delete_=True,
    type="BYOL",
    base_momentum={{_base_.model.base_momentum}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    head=dict(
        type="LatentPredictHead",
        loss=dict(type="CosineSimilarityLoss", shift_factor=2.0, scale_factor=2.0),
        predictor={{_base_.model.head.predictor}},
    ),
)
custom_hooks = []
