# SNCLR, ResNet-18, CIFAR-10, 200 epochs, one GPU. A starting point, not tuned.
_base_ = [
    "../_base_/models/snclr_resnet18-small.py",
    "../_base_/datasets/cifar10.py",
    "../_base_/schedules/sgd_coslr-200e.py",
    "../_base_/default_runtime.py",
]
