# SNCLR with Swin-T, else as for ConvNeXt-T.
_base_ = "snclr_convnext-tiny_8xb512-300e_in1k.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="SwinTransformer",
        arch="tiny",
        # The default, 0.1, would drop paths of the momentum branch, too.
        drop_path_rate=0.0,
    ),
    neck=dict(with_avg_pool=True),  # of the map that Swin returns
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={".relative_position_bias_table": dict(decay_mult=0.0)}
    )
)
