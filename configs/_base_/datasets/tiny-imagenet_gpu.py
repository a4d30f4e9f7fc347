# Tiny-ImageNet with everything but reading on the GPU, crops included, which needs
# images of one size (64 px); decoded once, into cache_dir. See docs/data.md.
_base_ = "tiny-imagenet.py"

multi_view = _base_.train_pipeline[1]
data_preprocessor = dict(
    type="AugmentDataPreprocessor",
    transforms=multi_view.transforms,
    num_views=multi_view.num_views,
    non_blocking=True,
)
train_dataloader = dict(
    num_workers=4,
    dataset=dict(
        pipeline=[dict(type="LoadImage"), dict(type="PackInputs")],
        cache_dir="data/cache",
    ),
)
del multi_view
