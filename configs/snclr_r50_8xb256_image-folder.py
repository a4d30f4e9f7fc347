# SNCLR on a folder of unlabeled images of any number and size, in any sub-folders: set
# data_root, here or with --cfg-options train_dataloader.dataset.data_root=DIR.
_base_ = "snclr_r50_8xb256.py"

data_root = "data/images"
train_dataloader = dict(dataset=dict(data_root=data_root))

# kNN needs labels, so nothing is measured: the test part says which images to extract
# features of, and how they are prepared.
val_cfg = val_dataloader = val_evaluator = None
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root=data_root,
        pipeline=_base_.test_pipeline,
    )
)
test_cfg = dict(_delete_=True)
test_evaluator = []
