# Vanilla contrastive learning (InfoNCE): stock MoCo v3, else as the SNCLR config.
_base_ = "../imagenet/snclr_r50_8xb256-100e_in1k.py"

model = dict(
    type="MoCoV3",
    head=dict(
        _delete_=True,
        type="MoCoV3Head",
        predictor={{_base_.model.head.predictor}},
        temperature={{_base_.temperature}},
        loss=dict(
            type="CrossEntropyLoss", loss_weight={{_base_.model.head.loss_weight}}
        ),
    ),
)
custom_hooks = []
