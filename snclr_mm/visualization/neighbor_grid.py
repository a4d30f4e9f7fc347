from pathlib import Path

import numpy as np


def plot_neighbors(
    queries: np.ndarray,
    neighbors: np.ndarray,
    positiveness: np.ndarray,
    same_class: np.ndarray,
    path: Path,
) -> None:
    """Draw each query with its neighbors, best first, and their positiveness.

    Args:
        queries (np.ndarray): Images, [n, H, W] or [n, H, W, 3], uint8.
        neighbors (np.ndarray): [n, K, H, W] or [n, K, H, W, 3], uint8.
        positiveness (np.ndarray): w_i, [n, K].
        same_class (np.ndarray): Whether the neighbor has the query's label, [n, K].
        path (Path): PNG to write.
    """
    from matplotlib.figure import Figure

    n, k = positiveness.shape
    figure = Figure(figsize=(1.05 * (k + 1.4), 1.25 * n + 0.5), layout="constrained")
    grid = figure.subplots(n, k + 2, width_ratios=[1, 0.25] + [1] * k, squeeze=False)
    for row in range(n):
        grid[row, 1].axis("off")
        images = [queries[row], None, *neighbors[row]]
        for column, (axes, image) in enumerate(zip(grid[row], images, strict=True)):
            if image is None:
                continue
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            color = "black"
            if column >= 2:
                color = "tab:green" if same_class[row, column - 2] else "tab:red"
                axes.set_xlabel(f"{positiveness[row, column - 2]:.3f}", labelpad=1)
            for side in axes.spines.values():
                side.set(color=color, linewidth=2)
    grid[0, 0].set_title("query")
    grid[0, 2].set_title("neighbors and positiveness", loc="left")
    figure.supxlabel("green: same class as the query; red: another", fontsize=10)
    figure.savefig(path, dpi=110)
