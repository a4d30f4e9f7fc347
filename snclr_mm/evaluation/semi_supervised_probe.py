import numpy as np
from torch import Tensor

from .linear_probe import sweep_linear_probe
from .subsets import count_classes, draw_per_class


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
        ValueError: If ``percent`` is out of range, or less than an image of a class.
    """
    classes, counts = count_classes(labels)
    chosen = np.round(counts * percent / 100).astype(int)
    if not (0 < percent <= 100 and chosen.min() > 0):
        scarce = classes[counts.argmin()]
        raise ValueError(
            f"--percent {percent:g}: must be above 0 and at most 100, and at least "
            f"one image of each class; class {scarce} has {counts.min()} images."
        )
    rows = draw_per_class(labels, chosen, seed)
    result = sweep_linear_probe(
        features[rows], labels[rows], test_features, test_labels, seed
    )
    return {"num_labels": len(rows), **result}
