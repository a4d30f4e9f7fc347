# Oxford 102 Flowers.
_base_ = "../transfer.py"

num_classes = 102
mean_per_class = True  # what the field reports
data_root = "data/Flowers102"
train_dataloader = dict(
    dataset=dict(type="Flowers102", data_root=data_root, split="trainval")
)
val_dataloader = dict(
    dataset=dict(type="Flowers102", data_root=data_root, split="test")
)
test_dataloader = val_dataloader
