from collections.abc import Callable, Iterable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from snclr_mm.models.ops import top_k

from .features import check_finite


def vote(
    similarity: Tensor, labels: Tensor, num_classes: int, temperature: float
) -> Tensor:
    """Weighted vote of neighbors, as in Wu et al. (CVPR 2018): weight exp(cos / T).

    Of cosine similarities [m, k] and classes [m, k] of the neighbors come the classes'
    shares of the votes, [m, num_classes].
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
        temperature (float): T > 0, see :func:`vote`. Defaults to 0.07.
        batch_size (int): Queries per product; no [m, n] matrix is held.

    Returns:
        Tensor: Predicted classes, [m].

    Raises:
        ValueError: If k or T is out of range, or a feature is not finite.
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

    ``progress`` wraps the batches, e.g. with a progress bar. The result is predicted
    classes, [m], by (k, T); errors are the same.
    """
    for k, temperature in product(ks, temperatures):
        check_knn(k, temperature, len(bank))
    check_finite(bank, "the bank")
    check_finite(queries, "the test images")
    bank = F.normalize(bank, dim=1)
    num_classes = int(bank_labels.max()) + 1
    predictions = {pair: [] for pair in product(ks, temperatures)}
    for batch in progress(F.normalize(queries, dim=1).split(batch_size)):
        similarity, index = top_k(batch, bank, max(ks), dtype=bank.dtype)
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
