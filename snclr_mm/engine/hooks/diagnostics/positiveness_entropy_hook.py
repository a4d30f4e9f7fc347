import math
from contextlib import ExitStack

import torch
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn

from snclr_mm.engine.hooks.utils import find_modules
from snclr_mm.evaluation.positiveness import positiveness_entropy
from snclr_mm.models import SoftNeighborHead

from .diagnostic_hook import DiagnosticHook, means_over_ranks


@HOOKS.register_module()
class PositivenessEntropyHook(DiagnosticHook):
    r"""How evenly the positiveness is spread over the neighbors, for SoftNeighborHead.

    With p the positiveness of an image's K neighbors, scaled to sum to 1, and its
    entropy :math:`H = -\sum_i p_i \log p_i`, logs means over all images, views and
    ranks:

    - ``diagnostics/positiveness_entropy``: H / log K, 0 (one neighbor counts) to 1 (all
      count alike); 0 for K = 1;
    - ``diagnostics/effective_neighbors``: exp(H), 1 to K.

    Args:
        interval (int): Iterations between two measurements. Defaults to 10.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    def __init__(self, interval: int = 10) -> None:
        super().__init__(interval)
        self._sums: list[Tensor] = []

    def before_train(self, runner) -> None:
        """Warn if there is nothing to measure."""
        if not find_modules(get_ori_model(runner.model), SoftNeighborHead):
            self._warn_once(runner, "the model has no SoftNeighborHead.")

    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
        self._sums = []
        for head in find_modules(model, SoftNeighborHead).values():
            handle = head.attention.register_forward_hook(self._observe)
            stack.callback(handle.remove)

    @torch.no_grad()
    def _observe(self, module: nn.Module, args: tuple, weight: Tensor) -> None:
        num_neighbors = weight.shape[1]
        if num_neighbors == 0:  # warm-up
            return
        entropy = positiveness_entropy(weight)
        entropy = entropy[~entropy.isnan()]
        relative = entropy / math.log(max(2, num_neighbors))  # log 1 = 0
        sums = [relative.sum(), entropy.exp().sum(), entropy.new_tensor(len(entropy))]
        self._sums.append(torch.stack(sums))

    def _measure(self, runner, data_batch: dict) -> dict[str, float]:
        names = ("positiveness_entropy", "effective_neighbors")
        return means_over_ranks(names, self._sums)
