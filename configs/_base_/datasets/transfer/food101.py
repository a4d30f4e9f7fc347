# Food-101.
_base_ = "../transfer.py"

num_classes = 101
mean_per_class = False  # what the field reports
data_root = "data/food-101"
train_dataloader = dict(
    dataset=dict(type="Food101", data_root=data_root, split="train")
)
val_dataloader = dict(dataset=dict(type="Food101", data_root=data_root, split="test"))
test_dataloader = val_dataloader
