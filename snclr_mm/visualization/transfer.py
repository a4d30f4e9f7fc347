from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .scalars import read_records

# Okabe and Ito's, which also the colour-blind tell apart; so do the markers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
STYLES = ("o-", "s-", "^--", "d:")
Curve = list[tuple[int, float]]


def read_metrics(work_dir: Path) -> dict[str, dict[int, float]]:
    """Read what a run's evaluations logged, from MMEngine's scalars.json.

    Args:
        work_dir (Path): Of a Runner that counts in steps; a resumed run has several
            files, of which the last that logged a step is believed.

    Returns:
        dict[str, dict[int, float]]: Scalar -> step -> value.
    """
    metrics: dict[str, dict[int, float]] = {}
    for file in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        for record in read_records(file)[0]:
            if "loss" in record:
                continue
            step = record.pop("step")
            for name, value in record.items():
                metrics.setdefault(name, {})[step] = value
    return metrics


def plot_transfer(
    curves: Mapping[str, Mapping[str, Mapping[int, Curve]]], path: str | Path
) -> None:
    """Draw metrics against training steps: a panel per metric, a color per arm.

    Args:
        curves (Mapping): Arm -> metric -> seed -> (step, percent). The mean over seeds
            is drawn, with a thin line per seed.
        path (str | Path): Where the picture goes.
    """
    from matplotlib.figure import Figure

    metrics = list(next(iter(curves.values())))
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(metrics) :]:
        axes.axis("off")
    for axes, metric in zip(panels, metrics, strict=False):
        for i, (arm, row) in enumerate(curves.items()):
            values = np.array(list(row[metric].values()))  # [seeds, points, 2]
            for seed in values:
                axes.plot(*seed.T, color=COLORS[i], linewidth=0.6, alpha=0.5)
            style = STYLES[i]
            mean = values.mean(axis=0).T
            axes.plot(*mean, style, color=COLORS[i], label=arm, ms=5)
        axes.set(title=f"{metric} (%)", xlabel="training steps")
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.supxlabel("Thick: the mean; thin: each seed.", fontsize=9)
    figure.savefig(path, dpi=120)
