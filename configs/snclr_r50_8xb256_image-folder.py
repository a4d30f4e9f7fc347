# SNCLR on a folder of unlabeled images of any number and size, in any sub-folders: set
# data_root, here or with --cfg-options train_dataloader.dataset.data_root=DIR.
_base_ = "snclr_r50_8xb256.py"

data_root = "data/images"
train_dataloader = dict(dataset=dict(data_root=data_root))

# kNN needs labels, so there is no evaluation.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
