# DTD (textures).
_base_ = "../transfer.py"

num_classes = 47
mean_per_class = False  # what the field reports
data_root = "data/dtd"
train_dataloader = dict(dataset=dict(type="DTD", data_root=data_root, split="trainval"))
val_dataloader = dict(dataset=dict(type="DTD", data_root=data_root, split="test"))
test_dataloader = val_dataloader
