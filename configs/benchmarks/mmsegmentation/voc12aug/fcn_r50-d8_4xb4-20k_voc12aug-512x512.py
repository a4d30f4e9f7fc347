# FCN, ResNet-50 with output stride 8, VOC 2012 with the augmented training set.
_base_ = "mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",  # ResNetV1c's stem is not the pretrained one
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
)
