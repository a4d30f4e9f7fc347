from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .html_page import write_page

STEPS = 9999  # of a coordinate in the page


def map_features(features: Tensor) -> np.ndarray:
    """Place images on a plane, similar ones together: t-SNE of cosine distances.

    Args:
        features (Tensor): [n, C], on any device; n is at least 2.

    Returns:
        np.ndarray: [n, 2], float32; the same for the same features.
    """
    from sklearn.manifold import TSNE

    features = features.cpu().float().numpy()
    # scikit-learn crashes on the components of features that are all the same.
    spread = min(features.shape) > 1 and np.ptp(features, axis=0).any()
    tsne = TSNE(
        # The default; of few images no more than a third.
        perplexity=min(30, max(1, (len(features) - 1) / 3)),
        metric="cosine",
        init="pca" if spread else "random",
        random_state=0,
    )
    return tsne.fit_transform(features)


def write_feature_map(
    path: str | Path, images: dict[str, Any], places: Mapping[str, np.ndarray]
) -> None:
    """Write an HTML page with a map of images, which are shown where one points.

    Args:
        path (str | Path): File to write. It holds everything, some 2 to 4 kB per image.
        images (dict[str, Any]): n images, of :func:`describe_images`.
        places (Mapping[str, np.ndarray]): Name of a checkpoint -> place of each image,
            [n, 2]; of several, one is shown at a time.
    """
    data = {
        **images,
        "steps": STEPS,
        "runs": [
            {"name": name, "x": x.tolist(), "y": y.tolist()}
            for name, (x, y) in ((n, _steps(xy).T) for n, xy in places.items())
        ],
    }
    write_page("feature_map.html", data, path)


def _steps(places: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to STEPS, with the same scale on both axes."""
    low, high = places.min(axis=0), places.max(axis=0)
    extent = max((high - low).max(), np.finfo(np.float32).tiny)
    centered = (places - (low + high) / 2) / extent + 0.5
    return (STEPS * centered).round().astype(int)
