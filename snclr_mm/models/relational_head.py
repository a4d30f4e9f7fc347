from mmpretrain.registry import MODELS
from torch import Tensor

from .losses import check_relation, relational_loss
from .neighbor_head import NeighborHead, Neighbors


@MODELS.register_module()
class RelationalHead(NeighborHead):
    """ReSSL's and SCE's head: a query is to resemble all the queue as its key does.

    See :func:`relational_loss`. Diagnostics alone look neighbors up. Until the queue
    holds K rows, and in its hook's warm-up, the loss is InfoNCE (arXiv 2203.08717).

    Args:
        queue (dict): Config of the :class:`NeighborQueue`.
        predictor (dict, optional): Config of the predictor, y_1 -> z_1. Defaults to
            None, the identity, as ReSSL has it.
        temperature (float): τ. Defaults to 0.1.
        target_temperature (float): τ_t, of the keys. Defaults to 0.04, ReSSL's.
        own_weight (float, optional): λ of SCE, 0 to 1. Defaults to None, ReSSL.
        num_neighbors (int): K of diagnostics. Defaults to 5.
        kwargs: ``loss_weight`` and ``init_cfg``, as in :class:`NeighborHead`.

    Raises:
        ValueError: If a temperature, λ, K or the loss weight is out of range.
    """

    needs_neighbors = False

    def __init__(
        self,
        queue: dict,
        predictor: dict | None = None,
        temperature: float = 0.1,
        target_temperature: float = 0.04,
        own_weight: float | None = None,
        num_neighbors: int = 5,
        **kwargs,
    ) -> None:
        check_relation(temperature, target_temperature, own_weight)
        shared = (num_neighbors, temperature)
        super().__init__(predictor, queue, *shared, detach_keys=True, **kwargs)
        self.settings = (temperature, target_temperature, own_weight)

    def _loss(
        self, query: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rows = self.queue.features[: len(self.queue)]
        return relational_loss(query, key, rows, *self.settings), {}
