import torch
from torch import Tensor

from .features import check_finite
from .linear_probe import draw_per_class, sweep_linear_probe


def few_shot_accuracies(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    per_class: int = 10,
    draws: int = 5,
) -> list[float]:
    """Accuracy of a linear probe on a few labels per class, for each draw.

    Args:
        features, labels, test_features, test_labels: As for
            :func:`sweep_linear_probe`.
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
    classes, counts = labels.unique(return_counts=True)
    if counts.min() < per_class:
        raise ValueError(
            f"per_class={per_class} labels asked, but class {classes[counts.argmin()]} "
            f"has {counts.min()} images."
        )
    counts = torch.full_like(counts, per_class)
    train, test = (features, labels), (test_features, test_labels)
    return [_probe_part(train, test, counts, seed)["accuracy"] for seed in range(draws)]


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
    classes, counts = labels.unique(return_counts=True)
    chosen = (counts.double() * percent / 100).round().long()
    if not (0 < percent <= 100 and chosen.min() > 0):
        raise ValueError(
            f"--percent {percent:g}: must be above 0 and at most 100, and at least one "
            f"image of each class; class {classes[counts.argmin()]} has "
            f"{counts.min()} images."
        )
    train, test = (features, labels), (test_features, test_labels)
    result = _probe_part(train, test, chosen, seed)
    return {"num_labels": int(chosen.sum()), **result}


def _probe_part(
    train: tuple[Tensor, ...], test: tuple[Tensor, ...], counts: Tensor, seed: int
) -> dict:
    """:func:`sweep_linear_probe` on so many images of each class."""
    features, labels = train
    check_finite(features, "the training images")  # those that are not drawn, too
    rows = draw_per_class(labels, counts, seed)
    return sweep_linear_probe(features[rows], labels[rows], *test, seed)
