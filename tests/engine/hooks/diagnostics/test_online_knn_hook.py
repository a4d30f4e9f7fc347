import math
from collections import defaultdict

import pytest
from helpers.diagnostics import find, scalar
from helpers.naive import dot, unit

from snclr_mm.engine import OnlineKNNHook

K, T, LENGTH = 3, 0.1, 40  # as in conftest.py


def observed(step):
    """Unit features of the first view, and labels; of the labeled images."""
    features = step["backbone"][0].mean(dim=(2, 3)).double().tolist()
    pairs = zip(features, step["labels"], strict=True)
    return [(unit(feature), label) for feature, label in pairs if label >= 0]


def naive_accuracies(batches):
    """Running accuracy over two batches, by plain loops."""
    bank, counts = [], []
    for batch in batches:
        if len(bank) >= K:
            hits = 0
            for feature, label in batch:
                found = sorted(((dot(feature, f), y) for f, y in bank), reverse=True)
                votes = defaultdict(float)
                for similarity, y in found[:K]:
                    votes[y] += math.exp(similarity / T)
                hits += max(votes, key=votes.get) == label
            counts.append((hits, len(batch)))
        bank = (batch + bank)[:LENGTH]
    pairs = [counts[max(0, i - 1) : i + 1] for i in range(len(counts))]
    return [100 * sum(h for h, _ in p) / sum(n for _, n in p) for p in pairs]


@pytest.mark.parametrize("scenario", ["plain", "partly labeled"])
def test_equals_plain_loops(watched, scenario):
    runner = watched(scenario)
    batches = [observed(step) for step in find(runner, "Recorder").steps]
    assert sum(len(batch) for batch in batches) > 2 * LENGTH  # old rows leave
    expected = naive_accuracies(batches)
    assert scalar(runner, "online_knn_top1") == pytest.approx(expected)
    assert len(expected) == 7
    assert len(set(expected)) > 2


def test_ranks_share_one_queue(watched_ranks):
    results, _ = watched_ranks(2, "shared")
    shares = zip(*([observed(s) for s in r["steps"]] for r in results), strict=True)
    expected = naive_accuracies([a + b for a, b in shares])
    for result in results:
        assert result["scalars"]["online_knn_top1"] == pytest.approx(expected)


def test_bad_settings():
    for name in ("length", "k", "window"):
        with pytest.raises(ValueError, match=rf"{name}=0 .*custom_hooks"):
            OnlineKNNHook(**{name: 0})
    with pytest.raises(ValueError, match=r"k=5 .*at most OnlineKNNHook\.length=4"):
        OnlineKNNHook(length=4, k=5)
    with pytest.raises(ValueError, match="temperature=0 must be above 0"):
        OnlineKNNHook(temperature=0)
