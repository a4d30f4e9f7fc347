# Any of MMSegmentation's configs of a ResNet-50, started from a pretraining checkpoint.
# The variable SEGMENTOR names it, without .py:
#   SEGMENTOR=upernet/upernet_r50_4xb4-160k_ade20k-512x512 tools/dist_train.sh \
#       .../stock_r50.py 4 --pretrained FILE
# The tests take these:
#   fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512        FCN, output stride 8, VOC 2012
#   fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769      FCN, output stride 8, Cityscapes
#   upernet/upernet_r50_4xb4-160k_ade20k-512x512    UPerNet, ADE20K
_base_ = "mmseg::{{$SEGMENTOR:fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512}}.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
work_dir = "work_dirs/{{$SEGMENTOR:fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512}}"

model = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",  # ResNetV1c's stem is not the pretrained one
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
)
