# SNCLR with a backbone of timm (pip install -e '.[timm]'): an anti-aliased ResNet-50.
# features_only and out_indices make it return one feature map, as ResNet does.
_base_ = "../imagenet/snclr_r50_8xb256-100e_in1k.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="TIMMBackbone",
        model_name="resnetblur50",
        features_only=True,
        out_indices=(4,),
        norm_layer="SyncBN",
    )
)
