from mmengine._strategy import FSDPStrategy
from mmengine.registry import STRATEGIES
from torch.distributed.fsdp import FullyShardedDataParallel


@STRATEGIES.register_module()
class ResumableFSDPStrategy(FSDPStrategy):
    """MMEngine's FSDPStrategy, which resumes with torch 2.1 and newer.

    MMEngine (0.10) hands the optimizer's state to FSDP in the order of arguments that
    torch 2.0 had, and resuming ends in ``TypeError: unhashable type: 'dict'``.

    Args:
        kwargs: As for FSDPStrategy, e.g. ``model_wrapper`` and ``state_dict_cfg``.
    """

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
