# Parameters, gradients and optimizer sharded over the GPUs (FSDP), for backbones that
# are too large for one: see docs/distributed.md.
#     _base_ = [RECIPE, "_base_/variants/fsdp.py"]
#     optim_wrapper = dict(optimizer=dict(fused=False))
# Not fused: the fused kernel skips a step for infinities in this rank's shard alone,
# where the loss scaler asks all ranks.
runner_type = "FlexibleRunner"
strategy = dict(
    type="ResumableFSDPStrategy",
    state_dict_cfg="full",  # one file, which also loads without FSDP
    model_wrapper=dict(
        type="MMFullyShardedDataParallel",
        sharding_strategy="FULL_SHARD",
        auto_wrap_policy="fsdp_wrap_policy",
        use_orig_params=True,
    ),
)
