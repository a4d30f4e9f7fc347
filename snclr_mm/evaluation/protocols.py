"""One flow of evaluation: extract features once, then run protocols by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.progress import track
from torch import Tensor, nn

from .feature_cache import FeatureCache
from .features import extract_features
from .few_label_probes import few_shot_accuracies, semi_supervised_probe
from .linear_probe import sweep_linear_probe
from .pixels import Pixels, drop_equal_channels
from .retrieval import retrieval_metrics
from .splits import Split
from .svm import SHOTS, largest_shot, linear_svm, low_shot_svm
from .weighted_knn import knn_grid

Labeled = tuple[Tensor, Tensor]  # features [n, C] and labels [n] or [n, K]
HEADLINE_KNN = (20, 0.07)


@dataclass
class ProtocolSettings:
    """What the protocols can be told; docs/evaluation.md says what each computes."""

    #: None: 1, 10, 20 and 200, as far as there are images.
    knn_k: Sequence[int] | None = None
    #: Every k is combined with every T.
    knn_temperature: Sequence[float] = (0.07,)
    #: Labels per class of few-shot.
    per_class: Sequence[int] = (1, 5, 10)
    #: Random draws of few-shot and svm-low-shot.
    draws: int = 5
    #: Labels of semi-supervised.
    percent: Sequence[float] = (1, 10)
    #: Positives per class of svm-low-shot; None: SHOTS, as far as there are images.
    shots: Sequence[int] | None = None


def extract_pair(
    model: nn.Module,
    splits: tuple[Split, Split],
    device: str = "cpu",
    cache: FeatureCache | None = None,
) -> list[Labeled]:
    """Extract features and labels of training and test images.

    Args:
        model (nn.Module): A network, trained or not, or :class:`Pixels`, of which grey
            images keep one channel.
        splits (tuple[Split, Split]): See :func:`build_splits`.
        device (str): Where the features go. Defaults to the CPU.
        cache (FeatureCache | None): Where features are kept. Defaults to None.

    Returns:
        list[tuple[Tensor, Tensor]]: Of each split, see :func:`extract_features`, which
        also says what is refused.
    """
    pair = []
    for split in splits:
        extract = partial(
            extract_features,
            model,
            split.dataloader,
            f"{split.name}.dataset",
            partial(track, description=f"  {split.name}, {len(split.rows)} images"),
            split.num_classes,
        )
        features, labels = (
            extract() if cache is None else cache.get(model, split, extract)
        )
        pair.append((features.to(device), labels.to(device)))
    if isinstance(model, Pixels):
        features = drop_equal_channels(*(part[0] for part in pair))
        pair = [(new, old[1]) for new, old in zip(features, pair, strict=True)]
    return pair


def run_protocol(
    name: str, train: Labeled, test: Labeled, settings: ProtocolSettings
) -> dict:
    """Run one of :data:`PROTOCOLS`.

    Returns:
        dict: ``table``, a list of dicts with ``name``, ``setting``, ``value`` (percent)
        and ``std`` (over draws, or None), and all that the protocol found out.

    Raises:
        ValueError: If a setting does not fit the data.
    """
    return PROTOCOLS[name](train, test, settings)


def summarize(results: dict[str, dict]) -> dict[str, float]:
    """The percentages of all protocols by name, rounded to two digits."""
    rows = [row for result in results.values() for row in result["table"]]
    return {row["name"]: round(row["value"], 2) for row in rows}


def _row(name: str, setting: str, value: float, std: float | None = None) -> dict:
    return {"name": name, "setting": setting, "value": value, "std": std}


def _knn(train: Labeled, test: Labeled, settings: ProtocolSettings) -> dict:
    ks = settings.knn_k or [k for k in (1, 10, 20, 200) if k <= len(train[0])]
    progress = partial(track, description="  knn")
    temperatures = settings.knn_temperature
    predicted = knn_grid(test[0], *train, ks, temperatures, progress=progress)
    grid = {
        pair: 100 * (labels == test[1]).double().mean().item()
        for pair, labels in predicted.items()
    }
    best = HEADLINE_KNN if HEADLINE_KNN in grid else next(iter(grid))
    return {
        "table": [_row("knn", "k = {}, T = {}".format(*best), grid[best])],
        "grid": [
            {"k": k, "temperature": temperature, "accuracy": value}
            for (k, temperature), value in grid.items()
        ],
    }


def _retrieval(train: Labeled, test: Labeled, settings: ProtocolSettings) -> dict:
    progress = partial(track, description="  retrieval")
    found = retrieval_metrics(test[0], train[0], test[1], train[1], progress=progress)
    queries = f"{found.pop('queries')} queries in {len(train[0])}"
    table = [_row(f"retrieval-{name}", queries, value) for name, value in found.items()]
    return {"table": table, **found}


def _linear(train: Labeled, test: Labeled, settings: ProtocolSettings) -> dict:
    print("  linear", flush=True)
    result = sweep_linear_probe(*train, *test)
    row = _row("linear", f"C = {result['C']:g}", result["accuracy"])
    return {"table": [row], **result}


def _few_shot(train: Labeled, test: Labeled, settings: ProtocolSettings) -> dict:
    table, accuracies = [], {}
    for count in track(settings.per_class, description="  few-shot"):
        values = few_shot_accuracies(*train, *test, count, settings.draws)
        setting = f"{count} per class, {settings.draws} draws"
        mean, std = float(np.mean(values)), float(np.std(values))
        table.append(_row(f"few-shot-{count}", setting, mean, std))
        accuracies[str(count)] = values
    return {"table": table, "draws": accuracies}


def _semi_supervised(train: Labeled, test: Labeled, settings: ProtocolSettings) -> dict:
    table, results = [], {}
    for percent in track(settings.percent, description="  semi-supervised"):
        result = semi_supervised_probe(*train, *test, percent)
        setting = f"{result['num_labels']} labels, C = {result['C']:g}"
        name = f"semi-supervised-{percent:g}"
        table.append(_row(name, setting, result["accuracy"]))
        results[f"{percent:g}"] = result
    return {"table": table, "percent": results}


def _svm(train: Labeled, test: Labeled, settings: ProtocolSettings) -> dict:
    print("  svm", flush=True)
    result = linear_svm(*train, *test)
    row = _row("svm", f"mAP of {len(result['ap'])} classes", result["mean_ap"])
    return {"table": [row], **result}


def _svm_low_shot(train: Labeled, test: Labeled, settings: ProtocolSettings) -> dict:
    table, results = [], {}
    possible = [k for k in SHOTS if k <= largest_shot(train[1])]
    for shots in track(settings.shots or possible, description="  svm-low-shot"):
        result = low_shot_svm(*train, *test, shots, settings.draws)
        setting = f"mAP, {settings.draws} draws, C = {result['C']:g}"
        name = f"svm-low-shot-{shots}"
        table.append(_row(name, setting, result["mean_ap"], result["std"]))
        results[str(shots)] = result
    return {"table": table, "shots": results}


PROTOCOLS = {
    "knn": _knn,
    "retrieval": _retrieval,
    "linear": _linear,
    "few-shot": _few_shot,
    "semi-supervised": _semi_supervised,
    "svm": _svm,
    "svm-low-shot": _svm_low_shot,
}
#: Those that take several labels per image.
MULTI_LABEL = ("svm", "svm-low-shot")
