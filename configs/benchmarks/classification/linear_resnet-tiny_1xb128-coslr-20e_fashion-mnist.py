# Linear probe of the small recipe's backbone.
_base_ = [
    "../../_base_/models/snclr_resnet-tiny.py",
    "../../_base_/datasets/fashion-mnist_labeled.py",
    "../../_base_/schedules/linear_coslr-100e.py",
    "../../_base_/benchmark_runtime.py",
]

model = dict(
    _delete_=True,
    type="ImageClassifier",
    backbone=dict(
        **_base_.model.backbone,
        frozen_stages=3,
        norm_eval=True,
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="MultiLinearHead",
        num_classes=10,
        in_channels=128,
        lr_factors=(0.1, 0.3, 1, 3, 10, 30),
    ),
)
val_evaluator = dict(_delete_=True, type="MultiLinearAccuracy")
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(max_epochs=20, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
