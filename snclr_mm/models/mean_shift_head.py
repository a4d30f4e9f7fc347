from mmpretrain.registry import MODELS
from torch import Tensor

from .losses import check_share, mean_shift_loss
from .neighbor_head import NeighborHead, Neighbors


@MODELS.register_module()
class MeanShiftHead(NeighborHead):
    """MSF's and MNN's head: a query moves to its key and the key's neighbors.

    See :func:`mean_shift_loss`. There are no negatives. Until the queue holds K rows,
    and in its hook's warm-up, the loss is BYOL's, and twice that with ``mix``.

    Args:
        predictor (dict, optional): Config of the predictor, y_1 -> z_1; with None, the
            identity, the features collapse.
        queue (dict): Config of the :class:`NeighborQueue`.
        num_neighbors (int): K, beside the key itself. Defaults to 5.
        mix (float | str, optional): λ of MNN, 0 to 1, or ``'uniform'`` to draw one in
            each step, as its authors do. Defaults to None, MSF.
        kwargs: ``loss_weight`` and ``init_cfg``, as in :class:`NeighborHead`.

    Raises:
        ValueError: If K, λ or the loss weight is out of range.
    """

    starts_as_info_nce = False

    def __init__(
        self,
        predictor: dict | None,
        queue: dict,
        num_neighbors: int = 5,
        mix: float | str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(predictor, queue, num_neighbors, 1, detach_keys=True, **kwargs)
        if mix is not None:
            check_share("mix", mix, "uniform")
        self.mix = mix

    def _loss(
        self, query: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rows = self.queue.features[neighbors.index]
        return mean_shift_loss(query, key, rows, self.mix), {}
