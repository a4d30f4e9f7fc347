# Fine-tuning ResNet-50 on all of ImageNet, with SimCLR's recipe (appendix B.5):
# Nesterov momentum, learning rate 0.05 x batch / 256, no weight decay, 30 epochs.
_base_ = [
    "mmpretrain::_base_/models/resnet50.py",
    "mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py",
    "../../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        norm_cfg=dict(type="SyncBN"),
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    )
)
train_dataloader = dict(batch_size=128)

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.0)
)
param_scheduler = [dict(type="CosineAnnealingLR", convert_to_iter_based=True)]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=30)
val_cfg = dict()
test_cfg = dict()
custom_hooks = []  # no queue
auto_scale_lr = dict(base_batch_size=1024)
