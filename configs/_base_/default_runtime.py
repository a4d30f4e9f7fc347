# MMPretrain's runtime, plus what every config of this project needs.
_base_ = "mmpretrain::_base_/default_runtime.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [dict(type="NeighborQueueHook")]

# The queue (67 MB at 65536 x 256) is in each checkpoint.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
