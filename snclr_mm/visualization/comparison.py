from collections.abc import Mapping
from pathlib import Path

import numpy as np


def plot_comparison(
    results: Mapping[str, Mapping[str, list[float]]], path: str | Path
) -> None:
    """Draw each method's results, a panel per metric, a dot per seed.

    Args:
        results (Mapping): Method to metric to the values of its seeds, percent; drawn
            in this order, from the top.
        path (str | Path): Where the picture goes.
    """
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(name for row in results.values() for name in row))
    figure = Figure(figsize=(1.5 + 3 * len(metrics), 1 + 0.35 * len(results)), dpi=150)
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    rows = np.arange(len(results))
    for axis, metric in zip(axes, metrics, strict=True):
        for row, values in zip(rows, results.values(), strict=True):
            if metric in values:  # else the method's runs failed
                seeds = values[metric]
                axis.plot(seeds, [row] * len(seeds), "o", alpha=0.5, color="C0")
                if len(seeds) > 1:
                    axis.plot(np.mean(seeds), row, "|", color="k", markersize=18)
        axis.set_xlabel(f"{metric} (%)")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(rows, results)
    axes[0].set_ylim(len(results) - 0.4, -0.6)
    several = any(len(v) > 1 for row in results.values() for v in row.values())
    text = "A dot is a run with one seed" + ", a line the mean of several." * several
    figure.supxlabel(text if several else f"{text}.", fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
