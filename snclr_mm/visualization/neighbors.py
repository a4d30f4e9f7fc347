from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snclr_mm.evaluation.features import batch_features
from snclr_mm.models import SoftNeighborHead


class FoundNeighbors(NamedTuple):
    """Rows of candidates, best first, and a score of each, [n, count].

    ``chance`` is 1/K where the score is positiveness, which sums to 1 over K neighbors;
    None where it is the cosine similarity.
    """

    index: Tensor
    score: Tensor
    chance: float | None


@torch.no_grad()
def find_neighbors(
    model: nn.Module,
    candidates: Iterable[dict],
    queries: dict,
    count: int = 10,
    own: Tensor | None = None,
) -> FoundNeighbors:
    """Find neighbors as training does: of projections, or else of pooled features.

    Args:
        model (nn.Module): A self-supervised algorithm, in eval mode. With a
            SoftNeighborHead the scores are w_i of the first of all K neighbors.
        candidates (Iterable[dict]): Batches of single views.
        queries (dict): One batch of single views, n images.
        count (int): Neighbors of each. Defaults to 10.
        own (Tensor, optional): Rows of the queries among the candidates, [n], which are
            left out. Defaults to None: they are no candidates.

    Returns:
        FoundNeighbors: On the CPU.
    """
    head = getattr(model, "head", None)
    soft = isinstance(head, SoftNeighborHead) and hasattr(model, "momentum_encoder")

    def key_of(batch: dict) -> Tensor:
        if not soft:
            return batch_features(model, batch)[0]
        return model.momentum_encoder(model.data_preprocessor(batch)["inputs"])[0]

    keys = F.normalize(torch.cat([key_of(batch) for batch in candidates]), dim=1)
    similarity = F.normalize(key_of(queries), dim=1) @ keys.T
    if own is not None:
        similarity[torch.arange(len(own)), own] = -2  # below any other
    most = len(keys) - (own is not None)
    k = min(head.num_neighbors if soft and head.num_neighbors else count, most)
    score, index = similarity.topk(k, dim=1)
    if soft and head.num_neighbors:
        inputs = model.data_preprocessor(queries)["inputs"]
        score = head.attention(model.neck(model.backbone(inputs))[0], keys[index])
    chance = 1 / k if soft and head.num_neighbors else None
    return FoundNeighbors(index[:, :count].cpu(), score[:, :count].cpu(), chance)
