# SNCLR on Fashion-MNIST, small enough for two CPU cores. Every value is a choice of
# ours, tried on held-out training images where docs/benchmarks says so.
_base_ = "_base_/default_runtime.py"

# A 0.7 M-parameter ResNet for 28 x 28 images that a CPU trains in minutes: ResNet-18's
# first three stages at half the width, with a stride in each.
norm_cfg = dict(type="BN1d")
model = dict(
    type="SNCLR",
    base_momentum=0.05,  # 0.95: a run of minutes has few steps to average over
    channels_last=True,  # faster on CPUs, see docs/benchmarks
    backbone=dict(
        type="ResNet_CIFAR",
        depth=18,
        num_stages=3,
        stem_channels=32,
        base_channels=32,
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
    ),
    neck=dict(  # projector, y
        type="NonLinearNeck",
        in_channels=128,
        hid_channels=512,
        out_channels=64,
        num_layers=2,
        with_last_bn_affine=False,
        norm_cfg=norm_cfg,
    ),
    head=dict(
        type="SoftNeighborHead",
        predictor=dict(  # z
            type="NonLinearNeck",
            in_channels=64,
            hid_channels=512,
            out_channels=64,
            num_layers=2,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=norm_cfg,
        ),
        queue=dict(type="NeighborQueue", length=4096, dim=64),
        attention=dict(
            type="CrossAttentionNeck", in_channels=64, projection="identity"
        ),
        num_neighbors=30,
        temperature=0.5,
        objective="sum_of_logs",
    ),
)

# Grey images get three equal channels, so the same pipelines serve color images of any
# size. Data: tools/data/prepare_fashion_mnist.py.
data_root = "data/fashion-mnist"
data_preprocessor = dict(
    type="SelfSupDataPreprocessor",
    mean=[72.94, 72.94, 72.94],  # of the training images
    std=[90.02, 90.02, 90.02],
    to_rgb=True,
)
view_pipeline = [
    dict(type="RandomResizedCrop", scale=28, crop_ratio_range=(0.3, 1.0)),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomApply",
        transforms=[dict(type="ColorJitter", brightness=0.4, contrast=0.4)],
        prob=0.8,
    ),
]
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="MultiView", num_views=[2], transforms=[view_pipeline]),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="Resize", scale=(28, 28)),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="FashionMNIST", data_root=data_root, pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    # MMPretrain reads the test files by test_mode; split alone would not do it.
    dataset=dict(
        type="FashionMNIST",
        data_root=data_root,
        split="test",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type="Accuracy", topk=1, prefix="knn")
test_cfg = dict(
    type="KNNTestLoop",
    k=20,
    temperature=0.07,
    bank_dataloader=dict(
        batch_size=500,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="FashionMNIST",
            data_root=data_root,
            split="train",
            pipeline=test_pipeline,
        ),
    ),
)
val_dataloader = test_dataloader
val_evaluator = test_evaluator
val_cfg = dict(test_cfg, type="KNNValLoop")

optim_wrapper = dict(
    type="AmpOptimWrapper",  # off on CPUs without instructions for bfloat16
    dtype="bfloat16",
    loss_scale=1.0,
    optimizer=dict(type="AdamW", lr=1e-2, weight_decay=1e-2),
)
param_scheduler = [
    # In iterations, over the cosine's start: also a run of one epoch works.
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=1)
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=5, max_keep_ckpts=2)
)
# lr is for this global batch; --auto-scale-lr adapts it to another.
auto_scale_lr = dict(base_batch_size=128)
