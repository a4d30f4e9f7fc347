import math
from contextlib import ExitStack

import torch
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from snclr_mm.engine.hooks.utils import find_modules
from snclr_mm.evaluation import positiveness_entropy
from snclr_mm.models import SoftNeighborHead

from .head_means_hook import HeadMeansHook


@HOOKS.register_module()
class PositivenessEntropyHook(HeadMeansHook):
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

    head = SoftNeighborHead
    names = ("positiveness_entropy", "effective_neighbors")

    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
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
