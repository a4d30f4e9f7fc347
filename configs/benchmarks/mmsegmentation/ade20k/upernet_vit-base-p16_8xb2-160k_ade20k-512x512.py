# UPerNet, ViT-B/16, ADE20K. The backbone is MMPretrain's, so that a pretraining
# checkpoint's names fit; it interpolates the position embedding.
_base_ = "mmseg::vit/vit_vit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="mmpretrain.VisionTransformer",
        arch="base",
        img_size=512,
        patch_size=16,
        out_type="featmap",
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
)
# MMSegmentation excludes "norm" from weight decay, but ViT's are named ln1 and ln2.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={".ln": dict(decay_mult=0.0)}))
