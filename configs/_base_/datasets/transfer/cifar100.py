# CIFAR-100, whose images are RGB already.
_base_ = "../transfer.py"

num_classes = 100
mean_per_class = False  # what the field reports
data_root = "data/cifar100"
data_preprocessor = dict(to_rgb=False)
train_dataloader = dict(
    dataset=dict(type="CIFAR100", data_root=data_root, split="train")
)
val_dataloader = dict(dataset=dict(type="CIFAR100", data_root=data_root, split="test"))
test_dataloader = val_dataloader
