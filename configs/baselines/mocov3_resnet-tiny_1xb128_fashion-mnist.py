# Vanilla contrastive learning (InfoNCE): stock MoCo v3, else as the SNCLR config.
_base_ = "../snclr_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}.py"

work_dir = "work_dirs/mocov3_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}"

model = dict(
    _delete_=True,
    type="MoCoV3",
    base_momentum={{_base_.model.base_momentum}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    head=dict(
        type="MoCoV3Head",
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
        predictor={{_base_.model.head.predictor}},
        temperature={{_base_.model.head.temperature}},
    ),
)
custom_hooks = []
