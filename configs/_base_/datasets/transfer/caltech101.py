# Caltech-101.
_base_ = "../transfer.py"

num_classes = 102
mean_per_class = True  # what the field reports
data_root = "data/caltech-101"
train_dataloader = dict(
    dataset=dict(type="Caltech101", data_root=data_root, split="train")
)
val_dataloader = dict(
    dataset=dict(type="Caltech101", data_root=data_root, split="test")
)
test_dataloader = val_dataloader
