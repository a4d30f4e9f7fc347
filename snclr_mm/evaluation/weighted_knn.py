from collections.abc import Callable, Iterable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor


def top_k_neighbors(
    queries: Tensor, bank: Tensor, k: int, chunk_size: int = 65536
) -> tuple[Tensor, Tensor]:
    """Find the k most similar bank rows, a chunk of the bank at a time.

    Args:
        queries (Tensor): [m, C], unit rows.
        bank (Tensor): [n, C], unit rows.
        k (int): If the bank has fewer than k rows, all are returned.
        chunk_size (int): Bank rows per product, so that memory is m x chunk_size.

    Returns:
        tuple[Tensor, Tensor]: Cosine similarity and bank row, [m, min(k, n)] each, best
        first.
    """
    similarity = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for start in range(0, len(bank), chunk_size):
        scores = queries @ bank[start : start + chunk_size].T
        values, rows = scores.topk(min(k, scores.shape[1]), dim=1)
        similarity = torch.cat([similarity, values], dim=1)
        index = torch.cat([index, rows + start], dim=1)
        similarity, best = similarity.topk(min(k, similarity.shape[1]), dim=1)
        index = index.gather(1, best)
    return similarity, index


def vote(
    similarity: Tensor, labels: Tensor, num_classes: int, temperature: float
) -> Tensor:
    """Weighted vote of neighbors, as in Wu et al. (CVPR 2018): weight exp(cos / T).

    Args:
        similarity (Tensor): Cosine similarities of the neighbors, [m, k].
        labels (Tensor): Their classes, [m, k], int64.
        num_classes (int): Number of classes.
        temperature (float): T > 0.

    Returns:
        Tensor: Each class's share of the votes, [m, num_classes].
    """
    # softmax = exp(cos / T) up to a factor per query, and does not overflow.
    weight = (similarity / temperature).softmax(dim=1)
    scores = weight.new_zeros(len(weight), num_classes)
    return scores.scatter_add_(1, labels, weight)


def weighted_knn(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    batch_size: int = 1024,
) -> Tensor:
    """Classify features by a weighted kNN vote with cosine similarity.

    Args:
        queries (Tensor): Features to classify, [m, C], any scale.
        bank (Tensor): Features with known classes, [n, C], any scale.
        bank_labels (Tensor): Their classes, [n], int64.
        k (int): Number of neighbors, 1 to n. Defaults to 20.
        temperature (float): T > 0. Defaults to 0.07.
        batch_size (int): Queries per product; no [m, n] matrix is held.

    Returns:
        Tensor: Predicted classes, [m].

    Raises:
        ValueError: If k or T is out of range.
    """
    grid = knn_grid(queries, bank, bank_labels, [k], [temperature], batch_size)
    return grid[k, temperature]


def knn_grid(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    ks: Sequence[int],
    temperatures: Sequence[float],
    batch_size: int = 1024,
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict[tuple[int, float], Tensor]:
    """:func:`weighted_knn` for every k with every T, from one search.

    Args:
        queries, bank, bank_labels, batch_size: As for :func:`weighted_knn`.
        ks (Sequence[int]): Numbers of neighbors.
        temperatures (Sequence[float]): Values of T.
        progress (Callable): Wraps the batches, e.g. with a progress bar.

    Returns:
        dict[tuple[int, float], Tensor]: Predicted classes, [m], by (k, T).

    Raises:
        ValueError: If a k or T is out of range.
    """
    for k, temperature in product(ks, temperatures):
        check_knn(k, temperature, len(bank))
    bank = F.normalize(bank, dim=1)
    num_classes = int(bank_labels.max()) + 1
    predictions = {pair: [] for pair in product(ks, temperatures)}
    for batch in progress(F.normalize(queries, dim=1).split(batch_size)):
        similarity, index = top_k_neighbors(batch, bank, max(ks))
        labels = bank_labels[index]
        for (k, temperature), parts in predictions.items():
            scores = vote(similarity[:, :k], labels[:, :k], num_classes, temperature)
            parts.append(scores.argmax(dim=1))
    return {pair: torch.cat(parts) for pair, parts in predictions.items()}


def check_knn(k: int, temperature: float, bank_size: int) -> None:
    """Raise ValueError unless 1 <= k <= ``bank_size`` and T > 0."""
    if not 1 <= k <= bank_size:
        raise ValueError(
            f"kNN: k={k} must be at least 1 and at most the bank's {bank_size} images "
            "(config key val_cfg.k; --knn-k)."
        )
    if not temperature > 0:
        raise ValueError(
            f"kNN: temperature={temperature} must be above 0 (config key "
            "val_cfg.temperature; --knn-temperature)."
        )
