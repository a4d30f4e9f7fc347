import weakref
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from .losses import Gathered, check_positive, gather, info_nce
from .neighbor_queue import NeighborQueue


class Neighbors(NamedTuple):
    """What one search found for the keys of D directions, n images each.

    ``similarity`` [D, n, K], and queue row ``index`` [D, n, K]. ``gathered`` holds keys
    and rows of all ranks, where their queues are the same, else None.
    """

    similarity: Tensor
    index: Tensor
    gathered: Gathered | None = None


class NeighborHead(BaseModule, metaclass=ABCMeta):
    """Base of the heads that look keys up in a :class:`NeighborQueue`.

    A direction is the comparison of one key, y_2, with the other views of its images.

    Args:
        predictor (dict, optional): Config of the predictor that maps y_1 to z_1, as in
            MMPretrain's MoCoV3Head; None is the identity.
        queue (dict): Config of the NeighborQueue.
        num_neighbors (int): K.
        temperature (float): τ > 0; of no effect where neither objective has one.
        loss_weight (float): Factor of the loss, above 0. Defaults to 1.
        detach_keys (bool): Whether the keys are constants. False where both views
            come from one encoder and it learns from both sides, as in SimCLR; what
            enters the queue is detached in any case. Defaults to True.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If K is negative or above the queue's length, or τ or the weight
            is not positive.
    """

    #: Whether the loss is InfoNCE until :attr:`ready`; else it is that of K = 0.
    starts_as_info_nce = True
    #: Whether the loss needs the K neighbors; else they are looked up for observers.
    needs_neighbors = True

    def __init__(
        self,
        predictor: dict | None,
        queue: dict,
        num_neighbors: int,
        temperature: float,
        loss_weight: float = 1.0,
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
        self._steps = 0
        self._steps_counted_for: int | None = None
        #: Scalars of the last :meth:`loss` for the log, empty during warm-up.
        self.log_vars: dict[str, Tensor] = {}
        #: Called with what each search found; diagnostics enter themselves here.
        self.search_observers: list[Callable[[Neighbors], None]] = []

    @property
    def ready(self) -> bool:
        """Whether neighbors are used: the warm-up is over and K rows are filled."""
        return self.queue.search_enabled and len(self.queue) >= self.num_neighbors > 0

    def loss(self, base_out: Tensor, momentum_out: Tensor) -> Tensor:
        """Compute the loss of one direction and stage the keys for the queue.

        The signature is that of MMPretrain's MoCoV3Head and LatentPredictHead; what is
        to be logged is left in :attr:`log_vars`.

        Args:
            base_out (Tensor): y_1, projections of the online branch, [n, d].
            momentum_out (Tensor): y_2, projections of the momentum branch for the
                same images, [n, d]; a constant unless ``detach_keys=False``.

        Returns:
            Tensor: Scalar, float32 (float64 for float64 features).

        Raises:
            ValueError: If the widths of projector, predictor and queue differ.
            RuntimeError: If no NeighborQueueHook fills the queue.
        """
        return self._sum_over_keys([[self._predict(base_out)]], [momentum_out])

    def loss_of_views(
        self,
        base_out: Sequence[Tensor | None],
        momentum_out: Sequence[Tensor | None],
    ) -> dict[str, Tensor]:
        """Compute the loss of all views, each against the keys of the other ones.

        There is one search for all keys, and one denominator for each. The loss is the
        sum over the keys of the mean over the views that are compared with it.

        Args:
            base_out (Sequence[Tensor | None]): y of each view, [n, d]; None for a view
                that is a key only.
            momentum_out (Sequence[Tensor | None]): The keys of the first views, [n, d]
                each; None for a view that has none.

        Returns:
            dict[str, Tensor]: ``loss``, and for the log ``queue_fill`` and, once there
            are neighbors, what the head tells of them.

        Raises:
            ValueError: If the widths of projector, predictor and queue differ.
            RuntimeError: If no NeighborQueueHook fills the queue.
        """
        views = [(i, self._predict(y)) for i, y in enumerate(base_out) if y is not None]
        keys = [(i, key) for i, key in enumerate(momentum_out) if key is not None]
        keys = keys[::-1]  # y_2, the key of x_1, is the first
        queries = [[view for i, view in views if i != own] for own, _ in keys]
        loss = self._sum_over_keys(queries, [key for _, key in keys])
        fill = loss.new_full((), self.queue.fill)
        return {"loss": loss, "queue_fill": fill, **self.log_vars}

    def search(self, keys: Tensor) -> Neighbors:
        """Look the keys of all directions up in one search of the queue.

        With a queue that all ranks share, keys and found rows are exchanged here: every
        rank must call this, with as many keys.

        Args:
            keys (Tensor): y_2 of each direction, [D, n, d].

        Returns:
            Neighbors: With K = 0 columns until :attr:`ready` or where nobody needs any.
        """
        keys = keys.detach()
        wanted = self.ready and (self.needs_neighbors or self.search_observers)
        k = self.num_neighbors if wanted else 0
        found = self.queue.search(keys.flatten(0, 1), k)
        similarity, index = (part.unflatten(0, keys.shape[:2]) for part in found)
        gathered = gather(keys, index) if self.queue.sync else None
        neighbors = Neighbors(similarity, index, gathered)
        for observe in self.search_observers:
            observe(neighbors)
        return neighbors

    def _predict(self, base_out: Tensor) -> tuple[Tensor, Tensor]:
        """y_1 and z_1 of one view."""
        self.queue.check_width(base_out)
        prediction = self.predictor([base_out])[0]
        if prediction.shape != base_out.shape:
            raise ValueError(
                f"The predictor's output {list(prediction.shape)} must be as wide as "
                f"the queue: set model.head.predictor.out_channels={self.queue.dim}."
            )
        return base_out, prediction

    def _sum_over_keys(
        self, queries: list[list[tuple[Tensor, Tensor]]], keys: list[Tensor]
    ) -> Tensor:
        """Sum of the losses of each key's queries (y_1, z_1)."""
        for key in keys:
            self.queue.check_width(key)
        key = torch.stack(keys)  # y_2, [D, n, d]
        if self.detach_keys:
            key = key.detach()
        y = torch.stack([torch.cat([y for y, _ in views]) for views in queries])
        z = torch.stack([torch.cat([z for _, z in views]) for views in queries])
        neighbors = self.search(key)
        if self.training and self.num_neighbors > 0:
            gathered = neighbors.gathered
            staged = key if gathered is None else gathered.key
            self._count_steps()
            self.queue.stage(staged.flatten(0, 1), gathered is not None, self._steps)
        if self.ready or not self.starts_as_info_nce:
            loss, self.log_vars = self._loss(z, y, key, neighbors)
        else:
            loss, self.log_vars = self._info_nce(z, key, neighbors.gathered), {}
        if neighbors.index.numel() > 0:
            self.log_vars["neighbor_similarity"] = neighbors.similarity.mean()
        return (self.loss_weight * loss).sum()

    def _count_steps(self) -> None:
        """Count, from the first call on, the steps of the head's optimizer."""
        if self._steps_counted_for != id(self):  # a copy counts its own
            self._steps_counted_for = id(self)
            count = partial(_count_step, weakref.ref(self))
            handle = register_optimizer_step_post_hook(count)
            weakref.finalize(self, handle.remove)

    def _info_nce(
        self, query: Tensor, key: Tensor, gathered: Gathered | None
    ) -> Tensor:
        """InfoNCE of each direction, [D]: what is left without neighbors."""
        all_keys = [None] * len(key) if gathered is None else gathered.key
        loss = torch.stack(
            [
                info_nce(z, y, self.temperature, self.detach_keys, everyone)
                for z, y, everyone in zip(query, key, all_keys, strict=True)
            ]
        )
        # DistributedDataParallel expects a gradient for each parameter.
        unused = (
            0 * parameter.sum()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith("predictor.")
        )
        return loss + sum(unused)

    @abstractmethod
    def _loss(
        self, query: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective once there are neighbors, or with K = 0 columns of them.

        Args:
            query (Tensor): z_1 of D directions, [D, m, d], with m = v n for v views.
            base_out (Tensor): y_1, [D, m, d].
            key (Tensor): y_2, [D, n, d].
            neighbors (Neighbors): Those of the keys.

        Returns:
            tuple: The loss of each direction, [D], and scalars for the log.
        """


def _count_step(head: weakref.ref, optimizer: Optimizer, args, kwargs) -> None:
    """Count the steps of the optimizer that has the head's weights.

    So a training loop that forgets to commit the queue is noticed at its second step.
    """
    head = head()
    weight = next(head.parameters(), None)
    groups = optimizer.param_groups
    head._steps += any(weight is p for group in groups for p in group["params"])
