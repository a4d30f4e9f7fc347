import numpy as np
import torch
from torch import Tensor

from .features import check_finite
from .linear_probe import sweep_linear_probe
from .subsets import count_classes, draw_per_class


def few_shot_accuracies(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    per_class: int = 10,
    draws: int = 5,
) -> list[float]:
    """Accuracy of a linear probe on a few labels per class, for each draw.

    Args:
        features, labels, test_features, test_labels: As for :func:`linear_probe`.
        per_class (int): Labels per class. Defaults to 10.
        draws (int): Random draws (seeds 0, 1, ...). Defaults to 5.

    Returns:
        list[float]: Top-1 accuracies, percent.

    Raises:
        ValueError: If a class has fewer than ``per_class`` images, ``per_class`` or
            ``draws`` is below 1, or a feature is not finite.
    """
    if per_class < 1 or draws < 1:
        raise ValueError(f"per_class={per_class} and draws={draws} must be at least 1.")
    arrays = features, labels, test_features, test_labels
    tensors = tuple(map(torch.as_tensor, arrays))
    classes, counts = count_classes(tensors[1])
    if counts.min() < per_class:
        scarce = classes[counts.argmin()]
        raise ValueError(
            f"per_class={per_class} labels asked, but class {scarce} has "
            f"{counts.min()} images."
        )
    counts = np.full_like(counts, per_class)
    return [_probe_part(*tensors, counts, seed)["accuracy"] for seed in range(draws)]


def few_shot_probe(*arrays: np.ndarray, per_class: int = 10, draws: int = 5) -> float:
    """Mean of :func:`few_shot_accuracies`, which see."""
    return float(np.mean(few_shot_accuracies(*arrays, per_class, draws)))


def semi_supervised_probe(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    percent: float,
    seed: int = 0,
) -> dict:
    """:func:`sweep_linear_probe` on a fixed part of the labels, on frozen features.

    The literature's semi-supervised evaluation fine-tunes the network on such a part;
    this trains a linear layer alone, so it takes seconds, but its figures are others.

    Args:
        features, labels, test_features, test_labels: As for
            :func:`sweep_linear_probe`.
        percent (float): Share of each class' labels to use, above 0 and up to 100.
        seed (int): The same seed and labels give the same part. Defaults to 0.

    Returns:
        dict: As of :func:`sweep_linear_probe`, and ``num_labels``.

    Raises:
        ValueError: If ``percent`` is out of range, or less than an image of a class, or
            a feature is not finite.
    """
    classes, counts = count_classes(labels)
    chosen = np.round(counts * percent / 100).astype(int)
    if not (0 < percent <= 100 and chosen.min() > 0):
        scarce = classes[counts.argmin()]
        raise ValueError(
            f"--percent {percent:g}: must be above 0 and at most 100, and at least "
            f"one image of each class; class {scarce} has {counts.min()} images."
        )
    return _probe_part(features, labels, test_features, test_labels, chosen, seed)


def _probe_part(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    counts: np.ndarray,
    seed: int,
) -> dict:
    """:func:`sweep_linear_probe` on so many images of each class."""
    check_finite(features, "the training images")  # those that are not drawn, too
    rows = draw_per_class(labels, counts, seed)
    part = features[rows], labels[rows]
    return {
        "num_labels": len(rows),
        **sweep_linear_probe(*part, test_features, test_labels, seed),
    }
