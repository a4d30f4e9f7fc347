from functools import partial

from mmengine._strategy import FSDPStrategy
from mmengine.model import BaseAveragedModel
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import STRATEGIES
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy


@STRATEGIES.register_module()
class ResumableFSDPStrategy(FSDPStrategy):
    """MMEngine's FSDPStrategy for models with a momentum branch, and with resume.

    A momentum branch is updated during the forward pass. What is not sharded at that
    time would be updated in vain, and what FSDP has already gathered is stale, so such
    settings are refused. On GPUs FSDP gathers on a stream of its own, which by itself
    waits for the compute stream only where the model's forward pass begins: here it
    waits once more, after the update.

    MMEngine (0.10) hands the optimizer's state to FSDP in the order of arguments that
    torch 2.0 had, and resuming with newer ones ends in ``TypeError: unhashable type``.

    Args:
        kwargs: As for FSDPStrategy, e.g. ``model_wrapper`` and ``state_dict_cfg``.

    Raises:
        ValueError: If the momentum branch would not be updated, or the optimizer has
            settings that need whole parameters.
    """

    def build_optim_wrapper(self, optim_wrapper, model=None) -> BaseOptimWrapper:
        """Refuse what needs whole parameters: each rank has parts, in one dimension."""
        if isinstance(optim_wrapper, dict):
            clip = optim_wrapper.get("clip_grad") or {"type": "value"}
            groups = optim_wrapper.get("paramwise_cfg") or {}
            for key, given in {
                "paramwise_cfg.flat_decay_mult": groups.get("flat_decay_mult"),
                "clip_grad": None if clip.get("type") == "value" else clip,
            }.items():
                if given is not None:
                    raise ValueError(
                        f"optim_wrapper.{key} does not work with FSDP: each rank has "
                        "flat parts of the parameters. Leave it out (for "
                        "flat_decay_mult, name the parameters in custom_keys)."
                    )
        return super().build_optim_wrapper(optim_wrapper, model)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Give each rank its shard of an optimizer's state.

        Args:
            state_dict (dict): As ``FSDPStrategy.optim_state_dict`` gave it.
        """
        optimizer = self.optim_wrapper.optimizer
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(
                model=self.model, optim=optimizer, optim_state_dict=state_dict
            )
        )

    def _wrap_model(self, model: nn.Module) -> FullyShardedDataParallel:
        model = super()._wrap_model(model)
        averages = [m for m in model.modules() if isinstance(m, BaseAveragedModel)]
        if not averages or model.sharding_strategy == ShardingStrategy.NO_SHARD:
            return model
        if model.sharding_strategy not in RESHARDING:
            raise ValueError(
                f"strategy.model_wrapper.sharding_strategy="
                f"{model.sharding_strategy.name} keeps parameters whole after the "
                "forward pass, so the momentum branch would not be updated: use one of "
                f"{[kind.name for kind in RESHARDING]}."
            )
        if model.forward_prefetch:
            raise ValueError(
                "strategy.model_wrapper.forward_prefetch=True gathers the momentum "
                "branch before it is updated: leave it False."
            )
        in_units = {
            parameter
            for unit in FullyShardedDataParallel.fsdp_modules(model)
            if unit is not model
            for parameter in unit.parameters()
        }
        for average in averages:
            average.register_forward_pre_hook(partial(_gather_after_update, model))
            for name, parameter in average.module.named_parameters():
                if parameter not in in_units:
                    raise ValueError(
                        f"{name} of the momentum branch is in FSDP's root unit, where "
                        "it would not be updated: "
                        "strategy.model_wrapper.auto_wrap_policy must make the whole "
                        "backbone and neck units, as fsdp_wrap_policy does for "
                        "MMPretrain's backbones and NonLinearNeck."
                    )
        return model


def _gather_after_update(root: FullyShardedDataParallel, *_) -> None:
    """Let what FSDP gathers from now on wait for what was computed up to now."""
    computed = root._device_handle.current_stream()
    for stream in (root._unshard_stream, root._pre_unshard_stream):
        stream.wait_stream(computed)


RESHARDING = (ShardingStrategy.FULL_SHARD, ShardingStrategy.HYBRID_SHARD)
