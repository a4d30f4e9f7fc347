# SNCLR, ResNet-18, images of 32 to 96 px, 200 epochs, all but reading on the GPU, crops
# included, which needs images of one size. Image files are decoded once, into
# cache_dir. DATASET is as in snclr_r18_1xb256-200e_small-images.py; see docs/data.md.
_base_ = "snclr_r18_1xb256-200e_small-images.py"

work_dir = "work_dirs/snclr_r18_1xb256-gpu-aug-200e_{{$DATASET:tiny-imagenet}}"

data_preprocessor = dict(
    type="AugmentDataPreprocessor",
    transforms=_base_.train_pipeline[1].transforms,
    num_views=_base_.train_pipeline[1].num_views,
)
dataset = dict(pipeline=[dict(type="LoadImage"), dict(type="PackInputs")])
if _base_.train_dataloader.dataset.type == "ImageFolder":  # CIFAR is in memory anyway
    dataset["cache_dir"] = "data/cache"
train_dataloader = dict(num_workers=4, dataset=dataset)
del dataset
