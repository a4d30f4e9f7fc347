# Linear probe of the small recipe's backbone, at six learning rates.
_base_ = "finetune_resnet-tiny_1xb128-coslr-20e_fashion-mnist.py"

model = dict(
    backbone=dict(frozen_stages=3, norm_eval=True),
    head=dict(
        _delete_=True,
        type="MultiLinearHead",
        num_classes=10,
        in_channels=128,
        lr_factors=(0.1, 0.3, 1, 3, 10, 30),
    ),
)
val_evaluator = dict(_delete_=True, type="MultiLinearAccuracy")
test_evaluator = val_evaluator
optim_wrapper = dict(
    _delete_=True,
    constructor="MultiLinearOptimWrapperConstructor",
    # 0.1 x batch / 256, and times each of model.head.lr_factors.
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=0.0),
)
