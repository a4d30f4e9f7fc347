from contextlib import ExitStack
from functools import partial

import torch
from mmpretrain.registry import HOOKS
from torch import nn

from snclr_mm.engine.hooks.utils import find_modules
from snclr_mm.models import NeighborHead, NeighborQueue
from snclr_mm.models.neighbor_head import Neighbors

from .head_means_hook import HeadMeansHook


@HOOKS.register_module()
class NeighborAgeHook(HeadMeansHook):
    """How old the found neighbors are, for every model with a NeighborHead.

    The age of a queue row is the number of rows that were enqueued after it. Logs means
    over all neighbors of all images, views and ranks:

    - ``diagnostics/neighbor_age``: in enqueued rows;
    - ``diagnostics/neighbor_relative_age``: as a share of the oldest row's age, 0 to 1;
      about 0.5 if neighbors are found regardless of their age.

    Rows of a random start were never enqueued and are left out.

    Args:
        interval (int): Iterations between two measurements. Defaults to 10.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    names = ("neighbor_age", "neighbor_relative_age")

    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
        for head in find_modules(model, NeighborHead).values():
            observe = partial(self._observe, head.queue)
            head.search_observers.append(observe)
            stack.callback(head.search_observers.remove, observe)

    def _observe(self, queue: NeighborQueue, neighbors: Neighbors) -> None:
        index = neighbors.index[neighbors.index < queue.num_enqueued]
        age = (queue.pointer - 1 - index) % queue.length
        oldest = max(1, queue.num_enqueued - 1)
        sums = [age.sum(), (age / oldest).sum(), index.new_tensor(index.numel())]
        self._sums.append(torch.stack([value.double() for value in sums]))
