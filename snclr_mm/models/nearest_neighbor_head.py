import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from .losses import nearest_neighbor_loss
from .neighbor_head import NeighborHead, Neighbors


@MODELS.register_module()
class NearestNeighborHead(NeighborHead):
    """NNCLR's head: each key is replaced by its nearest neighbors in the queue.

    Dwibedi et al., *With a Little Help from My Friends*, ICCV 2021. InfoNCE of z_1
    against NN(y_2); the negatives are the other images' nearest neighbors. See
    :func:`nearest_neighbor_loss`. Until the queue holds K rows, and in its hook's
    warm-up, the keys stay themselves (InfoNCE). Same queue, hook and ``loss`` signature
    as :class:`SoftNeighborHead`.

    Args:
        predictor (dict, optional): Config of the predictor, y_1 -> z_1; None is the
            identity.
        queue (dict): Config of the :class:`NeighborQueue`.
        temperature (float): τ. Defaults to 0.1, as in the NNCLR paper.
        num_neighbors (int): K. Defaults to 1, as in the paper.
        symmetric (bool): Whether neighbors are also compared with the queries of all
            images, as in the paper. Defaults to False.
        kwargs: ``loss_weight`` and ``init_cfg``, as in :class:`NeighborHead`.

    Raises:
        ValueError: If K is out of range, or τ or the loss weight is not positive.
    """

    def __init__(
        self,
        predictor: dict | None,
        queue: dict,
        temperature: float = 0.1,
        num_neighbors: int = 1,
        symmetric: bool = False,
        **kwargs,
    ) -> None:
        shared = (num_neighbors, temperature)
        super().__init__(predictor, queue, *shared, detach_keys=True, **kwargs)
        self.symmetric = symmetric

    def _loss(
        self, query: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        _, index, gathered = neighbors
        rows = self.queue.features
        # Where all ranks have these rows, their numbers are enough.
        others = [None] * len(index) if gathered is None else rows[gathered.index]
        losses = [
            nearest_neighbor_loss(z, nn, self.temperature, self.symmetric, everyone)
            for z, nn, everyone in zip(query, rows[index], others, strict=True)
        ]
        return torch.stack(losses), {}
