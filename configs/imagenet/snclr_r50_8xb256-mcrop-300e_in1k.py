# 300 epochs, multi-crop: 2 views of 224 px and 6 of 96 px.
_base_ = [
    "../_base_/models/snclr_r50.py",
    "../_base_/datasets/imagenet_mcrop.py",
    "../_base_/schedules/lars_coslr-300e.py",
    "../_base_/default_runtime.py",
]
