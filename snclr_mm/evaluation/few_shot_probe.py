import numpy as np
import torch

from .linear_probe import linear_probe
from .subsets import count_classes, draw_per_class


def few_shot_accuracies(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    per_class: int = 10,
    draws: int = 5,
) -> list[float]:
    """Accuracy of :func:`linear_probe` on a few labels per class, for each draw.

    Args:
        features, labels, test_features, test_labels: As for :func:`linear_probe`.
        per_class (int): Labels per class. Defaults to 10.
        draws (int): Random draws (seeds 0, 1, ...). Defaults to 5.

    Returns:
        list[float]: Top-1 accuracies, percent.

    Raises:
        ValueError: If a class has fewer than ``per_class`` images, or ``per_class`` or
            ``draws`` is below 1.
    """
    if per_class < 1 or draws < 1:
        raise ValueError(f"per_class={per_class} and draws={draws} must be at least 1.")
    arrays = features, labels, test_features, test_labels
    features, labels, *test = map(torch.as_tensor, arrays)
    classes, counts = count_classes(labels)
    if counts.min() < per_class:
        scarce = classes[counts.argmin()]
        raise ValueError(
            f"per_class={per_class} labels asked, but class {scarce} has "
            f"{counts.min()} images."
        )
    accuracies = []
    for seed in range(draws):
        rows = draw_per_class(labels, np.full_like(counts, per_class), seed)
        accuracies.append(linear_probe(features[rows], labels[rows], *test, seed))
    return accuracies


def few_shot_probe(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    per_class: int = 10,
    draws: int = 5,
) -> float:
    """Mean of :func:`few_shot_accuracies`, which see."""
    arrays = features, labels, test_features, test_labels
    return float(np.mean(few_shot_accuracies(*arrays, per_class, draws)))
