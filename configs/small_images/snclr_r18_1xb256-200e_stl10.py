# SNCLR, ResNet-18, STL-10, 200 epochs, one GPU. A starting point, not tuned.
_base_ = [
    "../_base_/models/snclr_resnet18-small.py",
    "../_base_/datasets/stl10.py",
    "../_base_/schedules/sgd_coslr-200e.py",
    "../_base_/default_runtime.py",
]

# A stride in each stage: 96 px cost as much as 48 px would without the first.
model = dict(backbone=dict(strides=(2, 2, 2, 2)))
