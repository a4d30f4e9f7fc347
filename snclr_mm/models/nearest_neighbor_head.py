from mmpretrain.registry import MODELS
from torch import Tensor

from .losses import Gathered
from .neighbor_head import NeighborHead, Neighbors


@MODELS.register_module()
class NearestNeighborHead(NeighborHead):
    """NNCLR's head: each key is replaced by its nearest neighbor in the queue.

    Dwibedi et al., *With a Little Help from My Friends*, ICCV 2021. InfoNCE of z_1
    against NN(y_2); the negatives are the other images' nearest neighbors. Until the
    queue holds a row, and in its hook's warm-up, the keys stay themselves (InfoNCE).
    Same queue, hook and ``loss`` signature as :class:`SoftNeighborHead`.

    Args:
        predictor (dict, optional): Config of the predictor, y_1 -> z_1; None is the
            identity.
        queue (dict): Config of the :class:`NeighborQueue`.
        temperature (float): τ. Defaults to 0.1, as in the NNCLR paper.
        loss_weight (float): Factor of the loss. Defaults to 1.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If τ or the loss weight is not positive.
    """

    def __init__(
        self,
        predictor: dict | None,
        queue: dict,
        temperature: float = 0.1,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            predictor,
            queue,
            num_neighbors=1,
            temperature=temperature,
            loss_weight=loss_weight,
            init_cfg=init_cfg,
        )

    def _loss(
        self, query: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        similarity, index, gathered = neighbors
        rows = self.queue.features
        key = rows[index[..., 0]]  # NN(y_2), [D, n, d]
        if gathered is not None:
            # All ranks have these rows: their numbers are enough.
            gathered = Gathered(rows[gathered.index[..., 0]], gathered.index)
        logs = {"neighbor_similarity": similarity.mean()}
        return self._info_nce(query, key, gathered), logs
