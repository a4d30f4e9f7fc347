import torch
from mmengine.dist import all_gather, get_rank
from mmpretrain.registry import MODELS
from torch import Tensor

from .cross_attention_neck import CrossAttentionNeck
from .neighbor_head import NeighborHead, Neighbors
from .soft_neighbor_loss import (
    check_loss,
    check_objective,
    check_positive,
    soft_neighbor_loss,
)


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
            Defaults to the preset's :class:`CrossAttentionNeck` of the queue's width.
        num_neighbors (int): K; 0 is InfoNCE. Defaults to 30.
        temperature (float, optional): τ. Defaults to the preset's.
        objective (str, optional): ``'log_of_sum'`` or ``'sum_of_logs'``, see
            :func:`soft_neighbor_loss`. Defaults to the preset's.
        loss_weight (float, optional): Factor of the loss. Defaults to the preset's.
        own_positiveness (float): w_0, the weight of the other view. Defaults to 1.
        detach_positiveness (bool): Stop the gradient through w_i; the attention's
            parameters are then frozen. Defaults to False.
        detach_keys (bool): Whether y_2 is a constant. False gives both views a
            gradient, as in SimCLR. Defaults to True.
        preset (str): Where the defaults come from, an argument that is given wins:

            - ``'paper'``: ``objective='log_of_sum'``, ``temperature=1.0`` (MoCo v3's
              for ResNet-50), ``loss_weight=1``, linear projections, and the queue's
              own defaults (empty, shared by the ranks).
            - ``'released'``: what the authors' code computes:
              ``objective='sum_of_logs'``, ``temperature=0.2``, ``loss_weight=2τ``,
              identity projections, and a queue per rank that starts random
              (``init='random', sync=False``).
        backend (str): How the loss is computed: ``'auto'``, ``'plain'`` or
            ``'streaming'``, see :func:`soft_neighbor_loss`. Defaults to ``'auto'``.
        precision (str): Of the products with other images' neighbors, ``'auto'``,
            ``'float32'``, ``'float16'`` or ``'bfloat16'``, see
            :func:`soft_neighbor_loss`. Defaults to ``'auto'``: autocast's.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If K is negative or above the queue's length; τ, w_0 or the loss
            weight is not positive; the objective, preset, backend or precision is
            unknown; or the widths of attention and queue differ.
    """

    PRESETS = ("paper", "released")

    def __init__(
        self,
        predictor: dict | None,
        queue: dict,
        attention: dict | None = None,
        num_neighbors: int = 30,
        temperature: float | None = None,
        objective: str | None = None,
        loss_weight: float | None = None,
        own_positiveness: float = 1.0,
        detach_positiveness: bool = False,
        detach_keys: bool = True,
        preset: str = "paper",
        backend: str = "auto",
        precision: str = "auto",
        init_cfg: dict | None = None,
    ) -> None:
        if preset not in self.PRESETS:
            raise ValueError(
                f"preset={preset!r} is unknown: use one of {self.PRESETS} (config key "
                "model.head.preset)."
            )
        released = preset == "released"
        if temperature is None:
            temperature = 0.2 if released else 1.0
        if objective is None:
            objective = "sum_of_logs" if released else "log_of_sum"
        if loss_weight is None:
            loss_weight = 2 * temperature if released else 1.0
        if released:
            queue = {"init": "random", "sync": False, **queue}
        super().__init__(
            predictor,
            queue,
            num_neighbors,
            temperature,
            loss_weight,
            detach_keys,
            init_cfg,
        )
        check_objective(objective)
        check_loss(backend, precision)
        check_positive(
            "own_positiveness (config key model.head.own_positiveness)",
            own_positiveness,
        )
        self.objective = objective
        self.backend = backend
        self.precision = precision
        self.own_positiveness = own_positiveness
        self.detach_positiveness = detach_positiveness
        self.attention = MODELS.build(
            {
                "type": "CrossAttentionNeck",
                "in_channels": self.queue.dim,
                "projection": "identity" if released else "linear",
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
        if detach_positiveness or num_neighbors == 0:
            self.attention.requires_grad_(False)

    def _loss(
        self, prediction: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> Tensor:
        similarity, index, gathered = neighbors
        candidates = self.queue.features
        weight = self._weigh(base_out, candidates, index)  # w, [n, K]
        if self.detach_positiveness:
            weight = weight.detach()
        if not self.queue.sync:
            # Each rank has a queue of its own, so here the neighbors must travel.
            candidates = torch.cat(all_gather(candidates[index].flatten(0, 1)))
            index = torch.arange(index.numel(), device=index.device).view_as(index)
            index = index + get_rank() * index.numel()
        loss = soft_neighbor_loss(
            prediction,
            key,
            index,
            candidates,
            weight,
            self.temperature,
            self.objective,
            self.own_positiveness,
            self.detach_keys,
            gathered,
            self.backend,
            self.precision,
        )
        if index.shape[1] > 0:
            self.log_vars = {
                "positiveness_mean": weight.detach().mean(),
                "positiveness_max": weight.detach().amax(dim=1).mean(),
                "neighbor_similarity": similarity.mean(),
            }
        else:
            # Warm-up: DistributedDataParallel expects a gradient for each parameter.
            loss = loss + sum(
                0 * p.sum() for p in self.attention.parameters() if p.requires_grad
            )
        return loss

    def _weigh(self, query: Tensor, candidates: Tensor, index: Tensor) -> Tensor:
        # Other necks, subclasses with a forward of their own too, take no index.
        takes_index = type(self.attention).forward is CrossAttentionNeck.forward
        if takes_index and self.backend != "plain":
            return self.attention(query, candidates, index)
        return self.attention(query, candidates[index])
