# ResNet-50 as pretraining left it, batch norm's statistics included, and linear
# classifiers on the pooled features.
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet",
        depth=50,
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="MultiLinearHead",
        num_classes=1000,
        in_channels=2048,
        lr_factors=(0.1, 0.3, 1, 3, 10, 30, 100),
    ),
)
