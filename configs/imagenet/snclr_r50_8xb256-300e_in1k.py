# SNCLR, ResNet-50, ImageNet, 300 epochs, 8 GPUs x 256 images.
_base_ = [
    "../_base_/models/snclr_r50.py",
    "../_base_/datasets/imagenet_mocov3.py",
    "../_base_/schedules/lars_coslr-300e.py",
    "../_base_/default_runtime.py",
]
