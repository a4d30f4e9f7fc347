import math

import pytest
import torch
from helpers.diagnostics import find, scalar

from snclr_mm.engine import PositivenessEntropyHook


def plain_loop(weights):
    """Mean of H / log K and of exp(H) over the rows of several [n, K]."""
    relative, effective = [], []
    for row in torch.cat(weights).double().tolist():
        p = [w / sum(row) for w in row]
        entropy = -sum(x * math.log(x) for x in p if x > 0)
        relative.append(entropy / math.log(len(row)))
        effective.append(math.exp(entropy))
    return sum(relative) / len(relative), sum(effective) / len(effective)


@pytest.mark.parametrize(
    "scenario",
    ["plain", "MoCoV3", "skipped steps", "partly labeled"],
    ids=["plain", "MoCoV3", "threshold", "gamma"],
)
def test_equals_a_plain_loop(watched, scenario):
    runner = watched(scenario)
    steps = find(runner, "Recorder").steps[1:]  # after the warm-up
    # Both directions of 16 images, in one call or one each.
    assert all(torch.cat(step["weights"]).shape == (32, 4) for step in steps)
    expected = [plain_loop(step["weights"]) for step in steps]
    relative, effective = zip(*expected, strict=True)
    assert scalar(runner, "positiveness_entropy") == pytest.approx(relative)
    assert scalar(runner, "effective_neighbors") == pytest.approx(effective)
    assert 0 < min(relative) <= max(relative) < 1
    if scenario == "skipped steps":
        assert max(effective) < 3  # the threshold takes neighbors away


def test_mean_over_ranks(watched_ranks):
    results, _ = watched_ranks(2, "own")
    weights = [[s["weights"] for s in r["steps"] if s["weights"]] for r in results]
    weights = [a + b for a, b in zip(*weights, strict=True) if a[0].shape[1]]
    expected = [plain_loop(w)[0] for w in weights]
    for result in results:
        logged = result["scalars"]["positiveness_entropy"]
        assert logged == pytest.approx(expected)


def observe(weight):
    hook = PositivenessEntropyHook()
    hook._observe(None, (), torch.tensor(weight))
    return hook._measure(None, None)


def test_extremes():
    even = {"positiveness_entropy": 1, "effective_neighbors": 4}
    assert observe([[0.25] * 4, [2.0] * 4]) == pytest.approx(even)
    alone = {"positiveness_entropy": 0, "effective_neighbors": 1}
    assert observe([[0.0, 3.0, 0.0]]) == pytest.approx(alone)
    assert observe([[0.7], [1.0]]) == pytest.approx(alone)
    # A threshold may leave an image no neighbor: it is left out.
    assert observe([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) == pytest.approx(alone)
    assert observe([[0.0, 0.0]]) == {}
