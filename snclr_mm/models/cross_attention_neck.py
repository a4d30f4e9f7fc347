from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from snclr_mm.hardware import to_device

PROJECTIONS = ("linear", "identity")


@MODELS.register_module()
class CrossAttentionNeck(BaseModule):
    r"""Positiveness: how much each neighbor supports the current image.

    Ge et al., ICLR 2023:

    .. math:: w_i = \frac{1}{γ_i} softmax_i( f_1(y_1) · f_2(NN(y_2)_i) )

    over the K neighbors of one image, on L2-normalised inputs and without 1/sqrt(d).

    Args:
        in_channels (int): d, the width of projections and queue.
        hidden_channels (int, optional): Output width of f_1 and f_2. Defaults to
            ``in_channels``. Only with ``projection='linear'``.
        projection (str): ``'linear'``: f_1 and f_2 are learned matrices that start
            equal and orthogonal, so that training starts from the cosine similarity;
            ``'identity'``: the authors' released setting. Defaults to ``'linear'``.
        gamma (float | Sequence[float]): γ > 0, one number or one per neighbor (then
            its length must be K). Larger γ means weaker neighbors. Defaults to 1.
        threshold (bool): Set w_i to 0 where the softmax is at most 1/K, as an option
            of the released code does. Defaults to False.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: For an unknown projection, or a width or γ that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | None = None,
        projection: str = "linear",
        gamma: float | Sequence[float] = 1.0,
        threshold: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if projection not in PROJECTIONS:
            raise ValueError(
                f"projection={projection!r} is unknown: use one of {PROJECTIONS} "
                "(config key attention.projection)."
            )
        hidden_channels = in_channels if hidden_channels is None else hidden_channels
        if in_channels < 1 or hidden_channels < 1:
            raise ValueError(
                f"attention.in_channels={in_channels} and "
                f"attention.hidden_channels={hidden_channels} must be at least 1."
            )
        if projection == "identity" and hidden_channels != in_channels:
            raise ValueError(
                f"attention.hidden_channels={hidden_channels} needs "
                "attention.projection='linear'; identity projections keep "
                f"in_channels={in_channels}."
            )
        scale = torch.as_tensor(gamma, dtype=torch.float64)
        if scale.dim() > 1 or not bool((scale > 0).all() and scale.isfinite().all()):
            raise ValueError(
                f"attention.gamma={gamma} must be a finite number above 0, or a list "
                "of such numbers, one per neighbor."
            )
        self.in_channels = in_channels
        self.threshold = threshold
        # Numbers, not a buffer, which would be rounded to the model's precision.
        self.gamma: float | list[float] = scale.tolist()
        if projection == "linear":
            self.f_1 = nn.Linear(in_channels, hidden_channels, bias=False)
            self.f_2 = nn.Linear(in_channels, hidden_channels, bias=False)
            nn.init.orthogonal_(self.f_1.weight)
            self.f_2.weight.data.copy_(self.f_1.weight.data)
        else:
            self.f_1 = nn.Identity()
            self.f_2 = nn.Identity()

    def forward(self, query: Tensor, neighbors: Tensor) -> Tensor:
        """Compute the positiveness of each neighbor.

        Args:
            query (Tensor): y_1, [n, d], any scale; gradient flows through it.
            neighbors (Tensor): NN(y_2), [n, K, d], any scale.

        Returns:
            Tensor: w_i, [n, K]; float32, or float64 for float64 queries.

        Raises:
            ValueError: If the widths differ from ``in_channels`` or K from len(γ).
        """
        self._check(query, neighbors)
        if neighbors.shape[1] == 0:
            return query.new_zeros(len(query), 0)
        with torch.autocast(query.device.type, enabled=False):
            dtype = torch.promote_types(query.dtype, torch.float32)
            q = F.normalize(query.to(dtype), dim=-1)
            if not isinstance(self.f_1, nn.Identity):
                # f_1(q) · f_2(c) = f_2ᵀ f_1(q) · c: one projection instead of K.
                q = F.linear(q, self.f_1.weight.to(q)) @ self.f_2.weight.to(q)
            k = F.normalize(neighbors.to(dtype), dim=-1)
            attention = torch.einsum("nd,nkd->nk", q, k).softmax(dim=1)
            gamma = self.gamma
            if isinstance(gamma, list):
                gamma = torch.tensor(gamma, dtype=attention.dtype)
                gamma = to_device(gamma, attention.device)
            weight = attention / gamma
            if self.threshold:
                weight = weight.masked_fill(attention <= 1 / neighbors.shape[1], 0)
            return weight

    def _check(self, query: Tensor, neighbors: Tensor) -> None:
        if not query.shape[-1] == neighbors.shape[-1] == self.in_channels:
            raise ValueError(
                f"query {list(query.shape)} and neighbors {list(neighbors.shape)} must "
                f"have the width attention.in_channels={self.in_channels}."
            )
        gamma, num_neighbors = self.gamma, neighbors.shape[1]
        if num_neighbors and isinstance(gamma, list) and len(gamma) != num_neighbors:
            raise ValueError(
                f"attention.gamma has {len(gamma)} values for {num_neighbors} "
                "neighbors: give one number, or one per neighbor."
            )
