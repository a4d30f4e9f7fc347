from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .neighbor_queue import NeighborQueue
from .soft_neighbor_loss import Gathered, check_positive, gather


class Neighbors(NamedTuple):
    """What a search found for n keys: similarity [n, K] and queue row [n, K].

    ``gathered`` holds keys and rows of all ranks, where their queues are the same.
    """

    similarity: Tensor
    index: Tensor
    gathered: Gathered | None = None


class NeighborHead(BaseModule, metaclass=ABCMeta):
    """Base of the heads that look keys up in a :class:`NeighborQueue`.

    Args:
        predictor (dict, optional): Config of the predictor that maps y_1 to z_1, as in
            MMPretrain's MoCoV3Head; None is the identity.
        queue (dict): Config of the NeighborQueue.
        num_neighbors (int): K.
        temperature (float): τ > 0.
        loss_weight (float): Factor of the loss, above 0.
        detach_keys (bool): Whether the keys are constants. False where both views
            come from one encoder and it learns from both sides, as in SimCLR; what
            enters the queue is detached in any case. Defaults to True.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If K is negative or above the queue's length, or τ or the weight
            is not positive.
    """

    def __init__(
        self,
        predictor: dict | None,
        queue: dict,
        num_neighbors: int,
        temperature: float,
        loss_weight: float,
        detach_keys: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_positive("temperature (config key model.head.temperature)", temperature)
        check_positive("loss_weight (config key model.head.loss_weight)", loss_weight)
        self.predictor = nn.Identity() if predictor is None else MODELS.build(predictor)
        self.queue: NeighborQueue = MODELS.build(queue)
        if not isinstance(num_neighbors, int) or not (
            0 <= num_neighbors <= self.queue.length
        ):
            raise ValueError(
                f"num_neighbors={num_neighbors} (config key model.head.num_neighbors) "
                f"must be an int between 0 and queue.length={self.queue.length}."
            )
        self.num_neighbors = num_neighbors
        self.temperature = temperature
        self.loss_weight = loss_weight
        self.detach_keys = detach_keys
        #: Scalars of the last loss for the log, empty during warm-up.
        self.log_vars: dict[str, Tensor] = {}
        #: Called with what each search found; diagnostics enter themselves here.
        self.search_observers: list[Callable[[list[Neighbors]], None]] = []

    @property
    def ready(self) -> bool:
        """Whether neighbors are used: the warm-up is over and K rows are filled."""
        return self.queue.search_enabled and len(self.queue) >= self.num_neighbors

    def search(self, *keys: Tensor) -> list[Neighbors]:
        """Look the keys of several views up in one search of the queue.

        With a queue that all ranks share, keys and found rows are exchanged here, those
        of all views at once: every rank must call this, with as many keys.

        Args:
            keys (Tensor): y_2 of each view, [n, d] each.

        Returns:
            list[Neighbors]: One per view; with K = 0 columns until :attr:`ready`.
        """
        k = self.num_neighbors if self.ready else 0
        together = torch.cat(keys).detach()
        similarity, index = self.queue.search(together, k)
        gathered = [None] * len(keys)
        if self.queue.sync:
            # [ranks, views, n, ...] to one of all ranks per view.
            everything = gather(together, index)
            views = (
                part.unflatten(0, (get_world_size(), len(keys), -1)).transpose(0, 1)
                for part in everything
            )
            gathered = [
                Gathered(*(part.flatten(0, 1) for part in view))
                for view in zip(*views, strict=True)
            ]
        sizes = [len(key) for key in keys]
        neighbors = [
            Neighbors(*found)
            for found in zip(
                similarity.split(sizes), index.split(sizes), gathered, strict=True
            )
        ]
        for observe in self.search_observers:
            observe(neighbors)
        return neighbors

    def loss(
        self,
        base_out: Tensor,
        momentum_out: Tensor,
        neighbors: Neighbors | None = None,
        stage: bool = True,
    ) -> Tensor:
        """Compute the loss of one direction and stage the keys for the queue.

        Args:
            base_out (Tensor): y_1, projections of the online branch, [n, d].
            momentum_out (Tensor): y_2, projections of the momentum branch for the
                same images, [n, d]; a constant unless ``detach_keys=False``.
            neighbors (Neighbors, optional): What :meth:`search` found for this very
                ``momentum_out``; searched here if None. Defaults to None.
            stage (bool): False where the same keys are staged by another call, as
                when several views are compared with them. Defaults to True.

        Returns:
            Tensor: Scalar, float32 (float64 for float64 features).

        Raises:
            ValueError: If the widths of projector, predictor and queue differ.
            RuntimeError: If no NeighborQueueHook fills the queue.
        """
        if self.detach_keys:
            momentum_out = momentum_out.detach()
        self.queue.check_width(momentum_out)
        self.queue.check_width(base_out)
        if neighbors is None:
            (neighbors,) = self.search(momentum_out)
        prediction = self.predictor([base_out])[0]
        if prediction.shape != base_out.shape:
            raise ValueError(
                f"The predictor's output {list(prediction.shape)} must be as wide as "
                f"the queue: set model.head.predictor.out_channels={self.queue.dim}."
            )
        self.log_vars = {}
        loss = self._loss(prediction, base_out, momentum_out, neighbors)
        if stage and self.training and self.num_neighbors > 0:
            if neighbors.gathered is None:
                self.queue.stage(momentum_out)
            else:
                self.queue.stage(neighbors.gathered.key, gathered=True)
        return self.loss_weight * loss

    @abstractmethod
    def _loss(
        self, prediction: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> Tensor:
        """The objective of z_1, y_1, y_2 [n, d] and the neighbors of y_2."""
