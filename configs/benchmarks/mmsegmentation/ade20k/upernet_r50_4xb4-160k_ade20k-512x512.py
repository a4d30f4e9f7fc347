# UPerNet, ResNet-50, ADE20K.
_base_ = "mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",  # ResNetV1c's stem is not the pretrained one
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
)
