# The same numbers as SyncBN, without its three waits for the GPU in every call, for
# ResNets. Not the default, as it has not run on a GPU yet: see docs/distributed.md.
#     _base_ = [RECIPE, "_base_/variants/non_blocking_sync_bn.py"]
#     model = _base_.non_blocking_sync_bn
non_blocking_sync_bn = dict(
    backbone=dict(norm_cfg=dict(type="NonBlockingSyncBN")),
    neck=dict(norm_cfg=dict(type="NonBlockingSyncBN")),
    head=dict(predictor=dict(norm_cfg=dict(type="NonBlockingSyncBN"))),
)
