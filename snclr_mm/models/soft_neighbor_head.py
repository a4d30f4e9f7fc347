import torch
from mmengine.dist import get_rank
from mmpretrain.registry import MODELS
from torch import Tensor

from .losses import check_objective, check_positive, soft_neighbor_loss
from .neighbor_head import NeighborHead, Neighbors
from .ops import gather_rows


@MODELS.register_module()
class SoftNeighborHead(NeighborHead):
    r"""SNCLR's head: predictor, neighbor search, positiveness and objective.

    Its ``loss(base_out, momentum_out)`` has the signature of MMPretrain's MoCoV3Head
    and LatentPredictHead, so it drops into the stock MoCoV3 and BYOL. Until the queue
    holds K rows, and in its hook's warm-up, the loss is InfoNCE.

    Args:
        predictor (dict, optional): Config of the predictor, y_1 -> z_1; None is the
            identity.
        queue (dict): Config of the :class:`NeighborQueue`, the candidate set C.
        attention (dict, optional): Config of the neck that weighs the neighbors.
            Defaults to a :class:`CrossAttentionNeck` of the queue's width.
        num_neighbors (int): K; 0 is InfoNCE. Defaults to 30.
        temperature (float): τ. Defaults to 1, MoCo v3's for ResNet-50.
        objective (str): ``'log_of_sum'``, the paper's formula, or ``'sum_of_logs'``,
            the authors' code, see :func:`soft_neighbor_loss`. Defaults to
            ``'log_of_sum'``.
        loss_weight (float): Factor of the loss; MoCo v3 and the authors' code have 2τ.
            Defaults to 1.
        own_positiveness (float): w_0, the weight of the other view once there are
            neighbors. Defaults to 1.
        detach_keys (bool): Whether y_2 is a constant. False gives both views a
            gradient, as in SimCLR. Defaults to True.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If K is negative or above the queue's length; τ, w_0 or the loss
            weight is not positive; the objective is unknown; or the widths of attention
            and queue differ.
    """

    def __init__(
        self,
        predictor: dict | None,
        queue: dict,
        attention: dict | None = None,
        num_neighbors: int = 30,
        temperature: float = 1.0,
        objective: str = "log_of_sum",
        loss_weight: float = 1.0,
        own_positiveness: float = 1.0,
        detach_keys: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        shared = (num_neighbors, temperature, loss_weight, detach_keys, init_cfg)
        super().__init__(predictor, queue, *shared)
        check_objective(objective)
        check_positive(
            "own_positiveness (config key model.head.own_positiveness)",
            own_positiveness,
        )
        self.objective = objective
        self.own_positiveness = own_positiveness
        self.attention = MODELS.build(
            {
                "type": "CrossAttentionNeck",
                "in_channels": self.queue.dim,
                **(attention or {}),
            }
        )
        in_channels = getattr(self.attention, "in_channels", self.queue.dim)
        if in_channels != self.queue.dim:
            raise ValueError(
                f"model.head.attention.in_channels={in_channels} must equal "
                f"model.head.queue.dim={self.queue.dim}."
            )
        gamma = getattr(self.attention, "gamma", None)
        if isinstance(gamma, list) and len(gamma) != num_neighbors:
            raise ValueError(
                f"model.head.attention.gamma has {len(gamma)} values, but "
                f"model.head.num_neighbors={num_neighbors}."
            )
        if num_neighbors == 0:
            self.attention.requires_grad_(False)

    def _loss(
        self, query: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        _, index, gathered = neighbors
        candidates = self.queue.features
        weight = self._weigh(base_out, candidates[index])  # w, [D, m, K]
        if not self.queue.sync:
            # Each rank has a queue of its own, so here the neighbors must travel.
            candidates = gather_rows(candidates[index].flatten(0, -2))
            index = torch.arange(index.numel(), device=index.device).view_as(index)
            index = index + get_rank() * index.numel()
        loss = soft_neighbor_loss(
            query,
            key,
            index,
            candidates,
            weight,
            self.temperature,
            self.objective,
            self.own_positiveness,
            self.detach_keys,
            gathered,
        )
        detached = weight.detach()
        return loss, {
            "positiveness_mean": detached.mean(),
            "positiveness_max": detached.amax(dim=-1).mean(),
        }

    def _weigh(self, base_out: Tensor, neighbors: Tensor) -> Tensor:
        """Positiveness [D, m, K] of the neighbors [D, n, K, d] for y_1 [D, m, d]."""
        neighbors = neighbors.flatten(0, 1)  # [D n, K, d]
        views = base_out.unflatten(1, (-1, len(neighbors) // len(base_out)))
        weight = [self.attention(y.flatten(0, 1), neighbors) for y in views.unbind(1)]
        weight = torch.stack([w.unflatten(0, (len(base_out), -1)) for w in weight], 1)
        return weight.flatten(1, 2)
