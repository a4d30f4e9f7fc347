import inspect

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmpretrain.registry import MODELS
from torch import Tensor

from .losses import check_share, mix_neighbors
from .neighbor_head import NeighborHead, Neighbors
from .ops import gather_rows


@MODELS.register_module()
class NeighborKeys(NeighborHead):
    """Any head of two views, with neighbors in place of the keys or mixed into them.

    NNBYOL, NNSiam and pNNCLR are stock algorithms with their head in this one. With
    LatentPredictHead features may collapse: only neighbors hold them apart. Until the
    queue holds K rows, and in its hook's warm-up, the keys stay themselves.

    Args:
        head (dict): Config of a head with ``loss(base_out, momentum_out)``, as
            LatentPredictHead and MoCoV3Head have it, or with ``loss(pos, neg)``, as
            ContrastiveHead, for which the other images' keys are negatives; or of a
            loss, such as CosineSimilarityLoss. It should normalise its arguments.
        queue (dict): Config of the :class:`NeighborQueue`.
        num_neighbors (int): K. Defaults to 1.
        pick (str): ``'nearest'``, the mean of the K nearest rows, or ``'sample'``, one
            of them, drawn for each image in each step. Defaults to ``'nearest'``.
        mix (float | str): λ of :func:`mix_neighbors`, from 0, the key itself, to 1, the
            neighbor alone. Defaults to 1.
        kwargs: ``loss_weight`` and ``init_cfg``, as in :class:`NeighborHead`.

    Raises:
        ValueError: If K, ``pick``, λ or the loss weight is not as above.
        TypeError: If the head takes other arguments.
    """

    starts_as_info_nce = False

    def __init__(
        self,
        head: dict,
        queue: dict,
        num_neighbors: int = 1,
        pick: str = "nearest",
        mix: float | str = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(None, queue, num_neighbors, 1, detach_keys=True, **kwargs)
        if pick not in ("nearest", "sample"):
            raise ValueError(f"model.head.pick={pick!r} must be 'nearest' or 'sample'.")
        check_share("mix", mix, "uniform")
        self.pick, self.mix = pick, mix
        self.head = MODELS.build(head)
        signature = inspect.signature(getattr(self.head, "loss", self.head.forward))
        self._arguments = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        if len(self._arguments) != 2 or "data_samples" in self._arguments:
            raise TypeError(
                f"model.head.head.type={type(self.head).__name__} takes "
                f"({', '.join(self._arguments)}), but NeighborKeys has (base_out, "
                "momentum_out), as for MoCoV3Head, or (pos, neg), for ContrastiveHead."
            )

    def _loss(
        self, query: Tensor, base_out: Tensor, key: Tensor, neighbors: Neighbors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        index = neighbors.index
        if index.numel() > 0:
            if self.pick == "sample":
                place = torch.randint_like(index[..., :1], index.shape[-1])
                index = index.gather(-1, place)
            key = mix_neighbors(key, self.queue.features[index].mean(-2), self.mix)
        losses = [
            torch.stack([self._loss_of_head(z, y) for z in views.split(len(y))]).mean()
            for views, y in zip(query, key, strict=True)
        ]
        return torch.stack(losses), {}

    def _loss_of_head(self, view: Tensor, key: Tensor) -> Tensor:
        loss = getattr(self.head, "loss", self.head)
        if self._arguments != ["pos", "neg"]:
            return loss(view, key)
        z, keys = F.normalize(view, dim=1), F.normalize(gather_rows(key), dim=1)
        similarity = z @ keys.T  # [n, N]
        own = torch.arange(len(z), device=z.device)[:, None] + len(z) * get_rank()
        # An entry of -inf is no negative.
        return loss(similarity.gather(1, own), similarity.scatter(1, own, -torch.inf))
