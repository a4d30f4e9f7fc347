from pathlib import Path

from .scalars import read_records


def read_scalars(work_dir: Path, metric: str = "knn/top1") -> dict[str, list]:
    """Read loss and metric against training time from MMEngine's scalars.json.

    Args:
        work_dir (Path): Of a Runner; its latest run is read.
        metric (str): Name of the validation metric. Defaults to kNN accuracy.

    Returns:
        dict[str, list]: ``loss`` and ``metric``, each a list of (minutes of training,
        value); evaluation does not count as training.

    Raises:
        FileNotFoundError: If no run has logged below ``work_dir``.
    """
    files = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    if not files:
        raise FileNotFoundError(f"{work_dir} holds no */vis_data/scalars.json.")
    loss, values = [], []
    seconds, iteration = 0.0, 0
    for record in read_records(files[-1])[0]:
        if "loss" in record and "iter" in record:
            # `time` is the mean over the iterations since the last record.
            seconds += record["time"] * (record["iter"] - iteration)
            iteration = record["iter"]
            loss.append((seconds / 60, record["loss"]))
        elif metric in record:
            values.append((seconds / 60, record[metric]))
    return {"loss": loss, "metric": values}


def plot_training(
    scalars: dict[str, list], path: Path, references: dict[str, float]
) -> None:
    """Draw loss and kNN accuracy against training time.

    Args:
        scalars (dict[str, list]): From :func:`read_scalars`.
        path (Path): PNG to write.
        references (dict[str, float]): Accuracies (percent) drawn as level lines.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*scalars["loss"], strict=True), color="tab:blue")
    left.set(xlabel="training time (minutes)", ylabel="SNCLR loss")
    right.plot(*zip(*scalars["metric"], strict=True), "o-", label="SNCLR", ms=4)
    for (name, value), style in zip(
        references.items(), ("--", ":", "-."), strict=False
    ):
        right.axhline(value, color="gray", linestyle=style, label=name)
    right.set(xlabel="training time (minutes)", ylabel="kNN accuracy (%)")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
