from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snclr_mm.evaluation.features import batch_features, check_finite, network_inputs
from snclr_mm.models import SoftNeighborHead
from snclr_mm.models.ops import top_k


class FoundNeighbors(NamedTuple):
    """Rows of candidates, best first, with cosine similarity and score, [n, count].

    ``chance`` is 1/K where the score is positiveness, which sums to 1 over K neighbors;
    None where it is the similarity.
    """

    index: Tensor
    similarity: Tensor
    score: Tensor
    chance: float | None


def evenly(total: int, count: int) -> list[int]:
    """At most so many of all rows, evenly spread."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


@torch.no_grad()
def find_neighbors(
    model: nn.Module,
    candidates: Iterable[dict],
    queries: dict | None = None,
    count: int = 10,
    own: Tensor | None = None,
) -> FoundNeighbors:
    """Find neighbors as training does: of projections, or else of pooled features.

    Args:
        model (nn.Module): A self-supervised algorithm, in eval mode. With a
            SoftNeighborHead the scores are w_i of the first of all K neighbors.
        candidates (Iterable[dict]): Batches of single views.
        queries (dict, optional): One batch of single views, n images. Defaults to None:
            every candidate is a query, with neighbors among the others.
        count (int): Neighbors of each. Defaults to 10.
        own (Tensor, optional): Rows of the queries among the candidates, [n], which are
            left out. Defaults to None: they are no candidates.

    Returns:
        FoundNeighbors: On the CPU.

    Raises:
        ValueError: If a feature is not finite.
    """
    weighted = has_soft_neighbors(model) and model.head.num_neighbors > 0
    online = weighted and queries is None
    parts = [_embed(model, batch, online) for batch in candidates]
    keys, y_1 = (torch.cat(part) for part in zip(*parts, strict=True))
    check_finite(keys, "the candidates")
    keys = query_keys = F.normalize(keys, dim=1)
    if queries is None:
        own = torch.arange(len(keys))
    else:
        query_keys, y_1 = _embed(model, queries, weighted)
        query_keys = F.normalize(query_keys, dim=1)
    most = len(keys) - (own is not None)
    k = min(model.head.num_neighbors if weighted else count, most)
    found = []
    for rows in torch.arange(len(query_keys)).split(1024):
        similarity, index = top_k(query_keys[rows], keys, k + (own is not None))
        if own is not None:
            other = index != own[rows, None].to(index.device)
            other[:, -1] &= ~other.all(dim=1)  # where equal ones hide it, one of them
            similarity, index = (x[other].view(-1, k) for x in (similarity, index))
        score = similarity
        if weighted:
            score = model.head.attention(y_1[rows], keys[index])
        found.append([part[:, :count].cpu() for part in (index, similarity, score)])
    columns = (torch.cat(part) for part in zip(*found, strict=True))
    return FoundNeighbors(*columns, 1 / k if weighted else None)


@torch.no_grad()
def extract_keys(model: nn.Module, batches: Iterable[dict]) -> Tensor:
    """What :func:`find_neighbors` looks images up by.

    Args:
        model (nn.Module): A self-supervised algorithm, in eval mode.
        batches (Iterable[dict]): Batches of single views, n images.

    Returns:
        Tensor: [n, C], float32, of unit length.

    Raises:
        ValueError: If a feature is not finite.
    """
    keys = torch.cat([_embed(model, batch, online=False)[0] for batch in batches])
    check_finite(keys, "the images")
    return F.normalize(keys, dim=1)


def has_soft_neighbors(model: nn.Module) -> bool:
    """Whether neighbors are those of the momentum branch, weighted by an attention."""
    head = getattr(model, "head", None)
    return isinstance(head, SoftNeighborHead) and hasattr(model, "momentum_encoder")


def _embed(model: nn.Module, batch: dict, online: bool) -> tuple[Tensor, Tensor]:
    """Keys, and what the attention compares them with if ``online``."""
    if not has_soft_neighbors(model):
        features = batch_features(model, batch)[0]
        return features, features
    inputs = network_inputs(model, batch)
    key = model.momentum_encoder(inputs)[0]
    return key, model.neck(model.backbone(inputs))[0] if online else key
