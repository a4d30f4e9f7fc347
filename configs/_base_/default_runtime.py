# MMPretrain's runtime, plus what every config of this project needs.
_base_ = "mmpretrain::_base_/default_runtime.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)
custom_hooks = [dict(type="NeighborQueueHook")]

default_hooks = dict(
    # The queue (67 MB at 65536 x 256) is in each checkpoint.
    checkpoint=dict(type="RobustCheckpointHook", max_keep_ckpts=3),
    sampler_seed=dict(type="ExactResumeHook"),
)

# A rank that waits longer than 10 minutes for another one ends the run.
env_cfg = dict(dist_cfg=dict(timeout=600))
