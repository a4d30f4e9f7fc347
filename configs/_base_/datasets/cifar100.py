# CIFAR-100, as CIFAR-10.
_base_ = "cifar10.py"

data_root = "data/cifar100"
data_preprocessor = dict(mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418])
dataset = dict(type="CIFAR100", data_root=data_root)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
val_cfg = dict(bank_dataloader=dict(dataset=dataset))
test_dataloader = dict(dataset=dataset)
test_cfg = dict(bank_dataloader=dict(dataset=dataset))
