# SNCLR, ViT-B/16, ImageNet, 300 epochs, 8 GPUs x 512 images; else as ViT-S/16.
_base_ = "snclr_vit-small-p16_8xb512-300e_in1k.py"

model = dict(backbone=dict(arch="base"), neck=dict(in_channels=768))
