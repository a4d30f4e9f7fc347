# Fine-tuning on 10 % of ImageNet's labels, with SwAV's recipe (eval_semisup.py): 20
# epochs of batch 256, learning rate 0.01 for the backbone and 0.2 for the classifier.
_base_ = [
    "mmpretrain::_base_/models/resnet50.py",
    "mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py",
    "../../_base_/benchmark_runtime.py",
]

model = dict(
    backbone=dict(
        norm_cfg=dict(type="SyncBN"),
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    )
)
# tools/make_semi_supervised_splits.py writes it.
train_dataloader = dict(dataset=dict(ann_file="meta/train_10percent.txt"))

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={"head.": dict(lr_mult=20)}),
)
param_scheduler = [dict(type="MultiStepLR", milestones=[12, 16], gamma=0.2)]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
