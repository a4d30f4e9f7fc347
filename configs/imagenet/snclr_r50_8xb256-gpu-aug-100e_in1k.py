# 100 epochs, views augmented on the GPU.
_base_ = [
    "../_base_/models/snclr_r50.py",
    "../_base_/datasets/imagenet_mocov3_gpu.py",
    "../_base_/schedules/lars_coslr-100e.py",
    "../_base_/default_runtime.py",
]
