# SNCLR on a ResNet-18 for images of 32 to 96 px: 3 x 3 stem, no max-pooling. Widths,
# momentum and τ as in solo-learn's MoCo v3 for CIFAR; objective and attention as in the
# Fashion-MNIST recipe; Q and K are our choice; not tuned.
model = dict(
    type="SNCLR",
    base_momentum=0.01,
    backbone=dict(
        type="ResNet_CIFAR",
        depth=18,
        norm_cfg=dict(type="SyncBN"),
        zero_init_residual=False,
    ),
    neck=dict(  # projector, y
        type="NonLinearNeck",
        in_channels=512,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_last_bn_affine=False,
    ),
    head=dict(
        type="SoftNeighborHead",
        predictor=dict(  # z
            type="NonLinearNeck",
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_last_bn=False,
            with_avg_pool=False,
        ),
        queue=dict(type="NeighborQueue", length=16384, dim=256),
        attention=dict(
            type="CrossAttentionNeck", in_channels=256, projection="identity"
        ),
        num_neighbors=10,
        temperature=0.2,
        objective="sum_of_logs",
    ),
)

data_preprocessor = dict(
    type="SelfSupDataPreprocessor",  # with ImageNet's statistics
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

# Images of 32 to 128 px: two views with MoCo v3's colors and no blur, as solo-learn has
# them for CIFAR, and weighted kNN, k and temperature DINO's. A recipe sets sizes and
# data.


def make_view(solarize):
    return dict(
        crop=dict(type="RandomResizedCrop", scale=64, crop_ratio_range=(0.08, 1.0)),
        jitter=dict(
            type="RandomApply",
            transforms=[
                dict(
                    type="ColorJitter",
                    brightness=0.4,
                    contrast=0.4,
                    saturation=0.2,
                    hue=0.1,
                )
            ],
            prob=0.8,
        ),
        gray=dict(
            type="RandomGrayscale",
            prob=0.2,
            keep_channels=True,
            channel_weights=(0.114, 0.587, 0.2989),  # BGR
        ),
        solarize=dict(type="Solarize", thr=128, prob=solarize),
        flip=dict(type="RandomFlip", prob=0.5),
    )


# By name, for the configs that change one of them.
views = [make_view(solarize=0.0), make_view(solarize=0.2)]
train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="MultiView",
        num_views=[1, 1],
        transforms=[list(view.values()) for view in views],
    ),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=256,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
)
test_dataloader = dict(
    batch_size=256,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
test_evaluator = dict(type="Accuracy", topk=(1, 5), prefix="knn")
test_cfg = dict(
    type="KNNTestLoop",
    k=20,
    temperature=0.07,
    bank_dataloader=dict(
        batch_size=256,
        sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
        collate_fn=dict(type="default_collate"),
    ),
)
val_dataloader = test_dataloader
val_evaluator = test_evaluator
val_cfg = dict(test_cfg, type="KNNValLoop")
