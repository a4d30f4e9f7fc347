# SNCLR with ConvNeXt-T, else as for ViT-S: AdamW, 300 epochs. Not tuned.
_base_ = "../imagenet/snclr_vit-small-p16_8xb512-300e_in1k.py"

model = dict(
    # Averages its last map before the final norm: a vector, which the neck takes as is.
    backbone=dict(_delete_=True, type="ConvNeXt", arch="tiny"),
    neck=dict(in_channels=768),
)
# No decay of norms, biases and layer scales, as in ConvNeXt's own recipe.
optim_wrapper = dict(
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={".gamma": dict(decay_mult=0.0)},
    )
)
find_unused_parameters = False  # which only MoCoV3ViT needs
