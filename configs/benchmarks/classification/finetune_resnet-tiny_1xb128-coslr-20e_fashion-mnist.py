# Fine-tuning the small recipe's backbone on all labels.
_base_ = [
    "../../_base_/models/snclr_resnet-tiny.py",
    "../../_base_/datasets/fashion-mnist_labeled.py",
    "../../_base_/benchmark_runtime.py",
]

model = dict(
    _delete_=True,
    type="ImageClassifier",
    backbone=dict(
        **_base_.model.backbone,
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=10, in_channels=128, topk=(1,)),
)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4),
    # The classifier starts from nothing.
    paramwise_cfg=dict(custom_keys={"head.": dict(lr_mult=10)}),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, convert_to_iter_based=True)
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=1)
auto_scale_lr = dict(base_batch_size=128)
