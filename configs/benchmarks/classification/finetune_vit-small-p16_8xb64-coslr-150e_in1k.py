# Fine-tuning MoCo v3's ViT-S on all of ImageNet. It has 12 heads where DeiT's ViT-S has
# 6: the weights would load into that as well, and mean something else.
_base_ = "finetune_vit-base-p16_8xb64-coslr-150e_in1k.py"

model = dict(
    backbone=dict(type="MoCoV3ViT", arch="mocov3-small"), head=dict(in_channels=384)
)
