# Fashion-MNIST, 28 x 28; grey images get three equal channels, so the same pipelines
# serve color images of any size. Data: tools/prepare_fashion_mnist.py.
data_root = "data/fashion-mnist"
data_preprocessor = dict(
    type="SelfSupDataPreprocessor",
    mean=[72.94, 72.94, 72.94],
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
    # Own images: type="ImageFolder" and data_root, and --no-validate where they have no
    # labels.
    dataset=dict(type="FashionMNIST", data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
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
val_evaluator = dict(type="Accuracy", topk=1, prefix="knn")
val_cfg = dict(
    type="KNNValLoop",
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
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(val_cfg, type="KNNTestLoop")
