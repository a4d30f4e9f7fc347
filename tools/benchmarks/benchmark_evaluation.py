#!/usr/bin/env python
"""Time kNN and the linear probe on cached features, against scikit-learn.

Features are drawn: Gaussian classes with a power-law spectrum, rectified. The probe
fits all its strengths twice, to four fifths to choose one and to everything;
scikit-learn fits one LogisticRegression per strength to everything. Fails if accuracies
differ from scikit-learn's by more than 0.3 points.
"""

import argparse
from functools import partial

import report
import torch
import torch.nn.functional as F
from measuring import Record, make_parser, timed
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from snclr_mm.evaluation import sweep_linear_probe, weighted_knn


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        __doc__, "benchmark_evaluation.json",
        train=(60000, "training features"), test=(10000, "queries"),
        width=(512, "of the features"), classes=(10, "of the features"),
    )  # fmt: skip
    return parser.parse_args(argv)


def make_features(n: int, args: argparse.Namespace, seed: int) -> tuple:
    """Features [n, width], not negative as after a ReLU, and classes [n]."""
    fixed = torch.Generator().manual_seed(0)  # the same classes in both parts
    means = torch.randn(args.classes, args.width, generator=fixed)
    mixing = torch.randn(args.width, args.width, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(args.classes, (n,), generator=generator)
    rank = torch.arange(1, args.width + 1)
    points = (
        torch.randn(n, args.width, generator=generator) + means[labels] / rank.sqrt()
    )
    return (points / rank.sqrt() @ mixing).relu(), labels


def compare_knn(train: tuple, test: tuple, device: str) -> dict:
    features, labels, queries = (part.to(device) for part in (*train, test[0]))
    seconds, predicted = timed(lambda: weighted_knn(queries, features, labels), device)
    # The same vote: the squared distance of unit vectors is 2 - 2 cos, and T = 0.07.
    neighbors = KNeighborsClassifier(
        20, weights=lambda d: torch.as_tensor(-d**2 / 0.14).exp().numpy(), n_jobs=-1,
        algorithm="brute",
    ).fit(F.normalize(train[0], dim=1).numpy(), train[1].numpy())  # fmt: skip
    queries = F.normalize(test[0], dim=1).numpy()
    sklearn_seconds, expected = timed(lambda: neighbors.predict(queries), "cpu")
    return {
        "name": "weighted kNN",
        "accuracy": 100 * (predicted.cpu() == test[1]).double().mean().item(),
        "seconds": seconds,
        "sklearn_accuracy": 100 * (expected == test[1].numpy()).mean(),
        "sklearn_seconds": sklearn_seconds,
    }


def compare_probe(train: tuple, test: tuple, device: str) -> dict:
    tensors = [part.to(device) for part in (*train, *test)]
    seconds, result = timed(lambda: sweep_linear_probe(*tensors), device)
    scaler = StandardScaler().fit(train[0])
    features, queries = scaler.transform(train[0]), scaler.transform(test[0])
    sklearn_seconds = 0.0
    for candidate in track(result["candidates"], description="scikit-learn"):
        regression = LogisticRegression(C=candidate["C"], max_iter=1000)
        fit = partial(regression.fit, features, train[1].numpy())
        sklearn_seconds += timed(fit, "cpu")[0]
        candidate["sklearn"] = 100 * regression.score(queries, test[1].numpy())
    chosen = next(c for c in result["candidates"] if c["C"] == result["C"])
    return {
        "name": f"linear probe, {len(result['candidates'])} strengths",
        "accuracy": result["accuracy"],
        "seconds": seconds,
        "sklearn_accuracy": chosen["sklearn"],
        "sklearn_seconds": sklearn_seconds,
        "candidates": result["candidates"],
    }


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    record = Record(args)
    train, test = make_features(args.train, args, 1), make_features(args.test, args, 2)
    for compare in (compare_knn, compare_probe):
        row = compare(train, test, args.device)
        row["ratio"] = row["sklearn_seconds"] / row["seconds"]
        record.add(row)
    report.show("evaluation", record)
    knn, probe = record["results"]
    pairs = [(knn["accuracy"], knn["sklearn_accuracy"])]
    pairs += [(c["test"], c["sklearn"]) for c in probe["candidates"]]
    if any(abs(mine - other) > 0.3 for mine, other in pairs):
        raise SystemExit(f"Accuracies differ from scikit-learn's: {pairs}")
    return record


if __name__ == "__main__":
    main()
