from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .features import check_finite


def retrieval_metrics(
    queries: Tensor,
    gallery: Tensor,
    query_labels: Tensor,
    gallery_labels: Tensor,
    recall_at: Sequence[int] = (1, 5, 10),
    batch_size: int = 256,
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict[str, float]:
    """Rank the gallery by cosine similarity to each query; its class is relevant.

    Args:
        queries (Tensor): Features, [m, C], any scale.
        gallery (Tensor): Features, [n, C], any scale.
        query_labels (Tensor): Classes, [m], int64.
        gallery_labels (Tensor): Classes, [n], int64.
        recall_at (Sequence[int]): k of recall@k, those above n are left out.
        batch_size (int): Queries per ranking; a [batch_size, n] matrix is held.
        progress (Callable): Wraps the batches, e.g. with a progress bar.

    Returns:
        dict[str, float]: Percent, means over the queries whose class is in the gallery:
        ``recall@k``, the share with a relevant image among the first k; ``map``, the
        mean over the relevant images of the precision at their ranks, over the whole
        ranking; ``mrr``, one over the rank of the first. And ``queries``, their number.

    Raises:
        ValueError: If a feature is not finite, or the gallery has no query's class.
    """
    check_finite(gallery, "the gallery")
    check_finite(queries, "the queries")
    known = torch.isin(query_labels, gallery_labels)
    if not known.any():
        raise ValueError(
            f"Retrieval: none of the {len(queries)} queries has a class that is in the "
            f"gallery of {len(gallery)} images."
        )
    gallery = F.normalize(gallery, dim=1)
    query_labels = query_labels[known]
    ranks = torch.arange(1, len(gallery) + 1, device=gallery.device)
    first, precision = [], []
    batches = F.normalize(queries[known], dim=1).split(batch_size)
    pairs = list(zip(batches, query_labels.split(batch_size), strict=True))
    for batch, labels in progress(pairs):
        order = (batch @ gallery.T).argsort(dim=1, descending=True, stable=True)
        relevant = gallery_labels[order] == labels[:, None]  # [b, n], by rank
        first.append(relevant.int().argmax(dim=1) + 1)
        found = relevant.cumsum(dim=1) / ranks
        precision.append((found * relevant).sum(dim=1) / relevant.sum(dim=1))
    first, precision = torch.cat(first), torch.cat(precision)
    values = {f"recall@{k}": first <= k for k in recall_at if k <= len(gallery)}
    values |= {"map": precision, "mrr": 1 / first}
    means = {name: 100 * part.double().mean().item() for name, part in values.items()}
    return {**means, "queries": len(first)}
