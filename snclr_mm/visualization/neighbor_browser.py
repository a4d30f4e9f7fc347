import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from snclr_mm.evaluation import positiveness_entropy

from .html_page import write_page
from .neighbors import FoundNeighbors


def write_neighbor_browser(
    path: str | Path, images: dict[str, Any], found: Mapping[str, FoundNeighbors]
) -> None:
    """Write an HTML page in which one walks from an image to its neighbors.

    Args:
        path (str | Path): File to write. It holds everything, some 2 to 4 kB per image.
        images (dict[str, Any]): n images, of :func:`describe_images`.
        found (Mapping[str, FoundNeighbors]): Name of a checkpoint -> neighbors of every
            image among the others, [n, K]. Several are shown side by side.
    """
    labels, runs = images["labels"], []
    for name, (index, similarity, score, chance) in found.items():
        run = {"name": name, "index": index.tolist()}
        run["similarity"] = _thousandths(similarity)
        run["purity"] = purity(index, labels) if labels else None
        run["positiveness"] = chance and _thousandths(score / chance)
        count = score.shape[1]
        run["entropy"] = None
        if chance and count == round(1 / chance):  # else it is not known of all K
            most = math.log(max(2, count))  # log 1 = 0
            run["entropy"] = _thousandths(positiveness_entropy(score) / most)
        runs.append(run)
    write_page("neighbor_browser.html", {**images, "runs": runs}, path)


def purity(index: Tensor, labels: Sequence[int | None]) -> list[float | None]:
    """Share of each query's neighbors that have its label, of those that have one.

    Args:
        index (Tensor): Rows of the neighbors of every image, [n, K].
        labels (Sequence[int | None]): n.
    """
    shares = []
    for own, row in zip(labels, index.tolist(), strict=True):
        others = [labels[i] for i in row if labels[i] is not None]
        known = own is not None and others
        shares.append(others.count(own) / len(others) if known else None)
    return shares


def _thousandths(values: Tensor) -> list:
    """Rounded; None for NaN."""
    if values.dim() > 1:
        return [_thousandths(row) for row in values]
    return [None if math.isnan(x) else round(1000 * x) for x in values.tolist()]
