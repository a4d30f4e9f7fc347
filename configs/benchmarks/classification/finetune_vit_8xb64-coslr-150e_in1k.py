# Fine-tuning MoCo v3's ViT-S or ViT-B, as the variable BACKBONE says, on all of
# ImageNet, with MoCo v3's recipe (DeiT's, 150 epochs):
#   BACKBONE=vit-base-p16 tools/dist_train.sh .../finetune_vit_8xb64-coslr-150e_in1k.py
_base_ = "mmpretrain::mocov3/benchmarks/vit-base-p16_8xb64-coslr-150e_in1k.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)


def choose(backbone):
    table = {
        # It has 12 heads where DeiT's ViT-S has 6: the weights would load into that as
        # well, and mean something else.
        "vit-small-p16": dict(
            backbone=dict(type="MoCoV3ViT", arch="mocov3-small"),
            head=dict(in_channels=384),
        ),
        "vit-base-p16": dict(),
    }
    if backbone not in table:
        raise ValueError(
            f"BACKBONE={backbone} is unknown: use one of {', '.join(table)}."
        )
    return table[backbone]


model = choose("{{$BACKBONE:vit-small-p16}}")
work_dir = "work_dirs/finetune_{{$BACKBONE:vit-small-p16}}_8xb64-coslr-150e_in1k"
auto_scale_lr = dict(base_batch_size=512)
