# SNCLR, ResNet-50, ImageNet, 800 epochs, 8 GPUs x 256 images.
_base_ = [
    "../_base_/models/snclr_r50.py",
    "../_base_/datasets/imagenet_mocov3.py",
    "../_base_/schedules/lars_coslr-800e.py",
    "../_base_/default_runtime.py",
]

model = dict(base_momentum=0.004)  # 0.996 for long training
