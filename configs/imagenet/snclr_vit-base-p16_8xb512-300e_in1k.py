# SNCLR, ViT-B/16, ImageNet, 300 epochs, 8 GPUs x 512 images.
_base_ = [
    "../_base_/models/snclr_vit-base-p16.py",
    "../_base_/datasets/imagenet_mocov3_vit.py",
    "../_base_/schedules/adamw_coslr-300e.py",
    "../_base_/default_runtime.py",
]

train_dataloader = dict(batch_size=512)
