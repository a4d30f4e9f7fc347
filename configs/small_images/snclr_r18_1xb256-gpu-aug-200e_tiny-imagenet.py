# Tiny-ImageNet, 200 epochs, decoded once and augmented on the GPU.
_base_ = [
    "../_base_/models/snclr_resnet18-small.py",
    "../_base_/datasets/tiny-imagenet_gpu.py",
    "../_base_/schedules/sgd_coslr-200e.py",
    "../_base_/default_runtime.py",
]
