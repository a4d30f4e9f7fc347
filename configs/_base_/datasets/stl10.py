# STL-10, 96 px: trains on the 100,000 unlabeled images; kNN with the 5,000 labeled ones
# as bank, on the 8,000 test images. MMPretrain has no STL-10 class:
# tools/prepare_stl10.py makes image folders of its files.
_base_ = "tiny-imagenet.py"

data_root = "data/stl10/"
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms[0][0].scale = 96
train_pipeline[1].transforms[1][0].scale = 96
test_pipeline = [dict(type="LoadImage"), dict(type="PackInputs")]

train_dataloader = dict(
    dataset=dict(data_root=data_root + "unlabeled", pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(data_root=data_root + "test", pipeline=test_pipeline)
)
val_cfg = dict(
    bank_dataloader=dict(
        dataset=dict(data_root=data_root + "train", pipeline=test_pipeline)
    )
)
test_dataloader = val_dataloader
test_cfg = val_cfg
