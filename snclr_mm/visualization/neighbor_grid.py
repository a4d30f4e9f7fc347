from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import BinaryIO

import numpy as np

# Okabe and Ito's, which also the colour-blind tell apart; so do the lines.
SAME, OTHER = ("#0072B2", "-"), ("#D55E00", "--")


def plot_neighbors(
    queries: Sequence[np.ndarray],
    neighbors: Sequence[Sequence[np.ndarray]],
    scores: np.ndarray,
    path: str | Path | BinaryIO,
    chance: float | None = None,
    query_names: Sequence[str | None] | None = None,
    neighbor_names: Sequence[Sequence[str | None]] | None = None,
    saliency: np.ndarray | None = None,
) -> None:
    """Draw each query with its neighbors, best first, a bar below each for its score.

    Args:
        queries (Sequence[np.ndarray]): n images, [H, W] or RGB [H, W, 3], uint8.
        neighbors (Sequence[Sequence[np.ndarray]]): Those of each, likewise.
        scores (np.ndarray): [n, count]: positiveness w_i, or a similarity up to 1.
        path (str | Path | BinaryIO): PNG to write.
        chance (float, optional): 1/K, of which positiveness is drawn as a multiple.
            Defaults to None: the scores are similarities.
        query_names (Sequence[str | None], optional): Class of each query, None where it
            is not known; with it a frame tells whether a neighbor is of the same one.
            Defaults to None: no frames.
        neighbor_names (Sequence[Sequence[str | None]], optional): Class of each
            neighbor.
        saliency (np.ndarray, optional): [n, count, H, W], 0 to 1, of which the
            neighbors get a veil. Defaults to None.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    n, k = scores.shape
    values = scores / chance if chance else scores
    longest = max(1.0, float(values.max()))
    figure = Figure(figsize=(1.15 * k + 1.9, 1.5 * n + 0.9), layout="constrained")
    grid = figure.subplots(n, k + 2, width_ratios=[1, 0.3] + [1] * k, squeeze=False)
    for row in range(n):
        grid[row, 1].axis("off")
        for column, image in enumerate([queries[row], None, *neighbors[row]]):
            if image is None:
                continue
            axes = grid[row, column]
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            name = query_names[row] if query_names else None
            for side in axes.spines.values():
                side.set_visible(False)
            if column < 2:
                axes.set_xlabel(name or "", fontsize=9, parse_math=False)
                continue
            if saliency is not None:
                veil = saliency[row, column - 2]
                axes.imshow(veil, cmap="cividis", vmin=0, vmax=1, alpha=0.6)
            value, line = values[row, column - 2], ""
            if neighbor_names:
                other = neighbor_names[row][column - 2]
                color, style = SAME if other == name else OTHER
                line = f"{other or 'no label'}\n"
                for side in axes.spines.values():
                    side.set(color=color, linestyle=style, linewidth=2.5)
                    side.set_visible(other is not None and name is not None)
            text = f"{value:.2f} / K" if chance else f"{value:.2f}"
            axes.set_xlabel(line + text, fontsize=9, labelpad=9, parse_math=False)
            box = dict(transform=axes.transAxes, clip_on=False, linewidth=0)
            axes.add_patch(Rectangle((0, -0.1), 1, 0.06, color="0.88", **box))
            share = max(0.0, value) / longest
            axes.add_patch(Rectangle((0, -0.1), share, 0.06, color="0.25", **box))
            if chance:
                x = 1 / longest
                axes.plot([x, x], [-0.12, -0.02], "k", lw=1, **_outside(axes))
    grid[0, 0].set_title("query", fontsize=11)
    grid[0, 2].set_title("neighbors, most similar first", loc="left", fontsize=11)
    legend = (
        "bar: weight of the neighbor in the loss; the line is the mean, 1 / K"
        if chance
        else "bar: cosine similarity"
    )
    if neighbor_names:
        legend += ". Frame: solid blue, the query's class; dashed orange, another"
    if saliency is not None:
        legend += ". Yellow: what makes the neighbor similar to the query"
    width = int(12 * figure.get_figwidth())  # characters, of a twelfth of an inch
    figure.supxlabel(fill(legend, width), fontsize=10)
    figure.savefig(path, dpi=110)


def _outside(axes) -> dict:
    return dict(transform=axes.transAxes, clip_on=False)
