# Fine-tuning ResNet-50 on the data set that the variable DATASET names, one of those in
# the linear probe's table:
#   DATASET=flowers102 python tools/train.py .../finetune_r50_1xb64-coslr-5k.py ...
# Recipe of Ericsson et al., How Well Do Self-Supervised Models Transfer? (CVPR 2021):
# 5000 steps of batch 64 with Nesterov momentum. They search learning rate (1e-4 to 0.1)
# and weight decay per dataset; these are values of their grid.
_base_ = "linear_r50_1xb256-coslr-100e.py"

work_dir = "work_dirs/finetune_r50_1xb64-coslr-5k_{{$DATASET:cifar10}}"

model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False),
    head=dict(
        _delete_=True,
        type="LinearClsHead",
        num_classes=_base_.num_classes,
        in_channels=2048,
        topk=(1,),
    ),
)
train_dataloader = dict(batch_size=64)

optim_wrapper = dict(
    _delete_=True,
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-3),
)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, begin=0)]
train_cfg = dict(
    _delete_=True, type="IterBasedTrainLoop", max_iters=5000, val_interval=1000
)
val_evaluator = [
    # Mean over the classes of their accuracy (their recall).
    dict(type="SingleLabelMetric", items=["recall"], average="macro")
    if _base_.mean_per_class
    else dict(type="Accuracy", topk=1)
]
test_evaluator = val_evaluator
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=5000),
)
log_processor = dict(by_epoch=False)
