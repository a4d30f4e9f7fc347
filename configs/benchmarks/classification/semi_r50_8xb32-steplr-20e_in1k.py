# Fine-tuning on 1 % or 10 % of ImageNet's labels, as the variable PERCENT says:
#   PERCENT=1 tools/dist_train.sh .../semi_r50_8xb32-steplr-20e_in1k.py 8 ...
# SwAV's recipe (eval_semisup.py): 20 epochs of batch 256, learning rates 0.02 for the
# backbone and 5 for the classifier with 1 %, 0.01 and 0.2 with 10 %.
_base_ = [
    "mmpretrain::_base_/models/resnet50.py",
    "mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py",
    "../../_base_/default_runtime.py",
]


def choose(percent):
    table = {"1": dict(lr=0.02, head=250), "10": dict(lr=0.01, head=20)}
    if percent not in table:
        raise ValueError(
            f"PERCENT={percent} is unknown: use one of {', '.join(table)}."
        )
    return table[percent]


chosen = choose("{{$PERCENT:10}}")
work_dir = "work_dirs/semi_r50_8xb32-steplr-20e_in1k-{{$PERCENT:10}}pct"

model = dict(
    backbone=dict(
        norm_cfg=dict(type="SyncBN"),
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    )
)
# tools/data/make_semi_supervised_splits.py writes it.
train_dataloader = dict(dataset=dict(ann_file="meta/train_{{$PERCENT:10}}percent.txt"))

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=chosen["lr"], momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={"head.": dict(lr_mult=chosen["head"])}),
)
del chosen
param_scheduler = [dict(type="MultiStepLR", milestones=[12, 16], gamma=0.2)]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20)
val_cfg = dict()
test_cfg = dict()
custom_hooks = []  # no queue
auto_scale_lr = dict(base_batch_size=256)
