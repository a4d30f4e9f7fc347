# CIFAR-10, whose images are RGB already.
_base_ = "../transfer.py"

num_classes = 10
mean_per_class = False  # what the field reports
data_root = "data/cifar10"
data_preprocessor = dict(to_rgb=False)
train_dataloader = dict(
    dataset=dict(type="CIFAR10", data_root=data_root, split="train")
)
val_dataloader = dict(dataset=dict(type="CIFAR10", data_root=data_root, split="test"))
test_dataloader = val_dataloader
