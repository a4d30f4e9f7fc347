import torch
from mmengine.dist import all_reduce
from mmpretrain.utils import get_ori_model
from torch import Tensor

from snclr_mm.engine.hooks.utils import find_modules
from snclr_mm.models import NeighborHead

from .diagnostic_hook import DiagnosticHook


class HeadMeansHook(DiagnosticHook):
    """Base of the hooks that log means of what the heads of a model show in a step.

    A subclass appends to ``_sums``, at each observation, a tensor of float64: a sum for
    each of its ``names``, and last how many values were summed. Each rank makes as many
    observations.

    Args:
        interval (int): Iterations between two measurements. Defaults to 10.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    head: type = NeighborHead
    names: tuple[str, ...]

    def __init__(self, interval: int = 10) -> None:
        super().__init__(interval)
        self._sums: list[Tensor] = []

    def before_train(self, runner) -> None:
        """Warn if there is nothing to measure."""
        if not find_modules(get_ori_model(runner.model), self.head):
            self._warn_once(runner, f"the model has no {self.head.__name__}.")

    def _measure(self, runner, data_batch: dict) -> dict[str, float]:
        """Means over all ranks; none where nothing was observed."""
        observed, self._sums = self._sums, []
        if not observed:
            return {}
        total = torch.stack(observed).sum(dim=0)
        all_reduce(total)
        *sums, count = total.tolist()
        if count == 0:
            return {}
        return {name: x / count for name, x in zip(self.names, sums, strict=True)}
