import numpy as np
from torch import Tensor


def count_classes(labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The classes that occur, and how many images each has."""
    return np.unique(labels.cpu().numpy(), return_counts=True)


def draw_per_class(labels: Tensor, counts: np.ndarray, seed: int) -> np.ndarray:
    """Draw images of each class without replacement.

    Args:
        labels (Tensor): [n].
        counts (np.ndarray): How many of each class that occurs, in ascending order.
        seed (int): The same seed, labels and counts give the same images.

    Returns:
        np.ndarray: Their rows, class by class.
    """
    labels = labels.cpu().numpy()
    generator = np.random.default_rng(seed)
    return np.concatenate(
        [
            generator.choice(np.flatnonzero(labels == label), count, replace=False)
            for label, count in zip(np.unique(labels), counts, strict=True)
        ]
    )
