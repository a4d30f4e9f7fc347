# FCN, ResNet-50 with output stride 8, Cityscapes.
_base_ = "mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",  # ResNetV1c's stem is not the pretrained one
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
)
