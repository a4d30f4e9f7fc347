# As ViT-S/16, on ViT-B/16.
_base_ = "snclr_vit-small-p16.py"

model = dict(backbone=dict(arch="base"), neck=dict(in_channels=768))
