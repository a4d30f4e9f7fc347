import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

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
        for line in file.read_text().splitlines():
            record = json.loads(line)
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
    figure = Figure(figsize=(1 + 4 * len(metrics), 3.2), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for i, (arm, row) in enumerate(curves.items()):
            values = np.array(list(row[metric].values()))  # [seeds, points, 2]
            for seed in values:
                axes.plot(*seed.T, color=f"C{i}", linewidth=0.6, alpha=0.5)
            axes.plot(*values.mean(axis=0).T, "o-", color=f"C{i}", label=arm, ms=4)
        axes.set(xlabel="training steps", ylabel=f"{metric} (%)")
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=120)
