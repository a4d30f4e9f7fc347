# Fine-tuning ViT-B on all of ImageNet: MoCo v3's recipe (DeiT's, 150 epochs).
_base_ = "mmpretrain::mocov3/benchmarks/vit-base-p16_8xb64-coslr-150e_in1k.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
auto_scale_lr = dict(base_batch_size=512)
