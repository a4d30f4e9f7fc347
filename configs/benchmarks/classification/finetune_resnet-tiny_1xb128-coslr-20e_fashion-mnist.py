# Fine-tuning the small recipe's backbone on all labels.
_base_ = "../../snclr_resnet-tiny_1xb128_fashion-mnist.py"

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
data_preprocessor = dict(type="ClsDataPreprocessor", num_classes=10)
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="RandomResizedCrop", scale=28, crop_ratio_range=(0.5, 1.0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(_delete_=True, type="Accuracy", topk=1)
test_evaluator = val_evaluator
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)

optim_wrapper = dict(
    _delete_=True,
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4),
    # The classifier starts from nothing.
    paramwise_cfg=dict(custom_keys={"head.": dict(lr_mult=10)}),
)
param_scheduler = [dict(type="CosineAnnealingLR", convert_to_iter_based=True)]
custom_hooks = []  # no queue
