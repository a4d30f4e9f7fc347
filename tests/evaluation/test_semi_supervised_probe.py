import pytest
import torch
from sklearn.datasets import load_digits

from snclr_mm.evaluation import semi_supervised_probe, sweep_linear_probe


@pytest.fixture(scope="module")
def digits():
    features, labels = map(torch.as_tensor, load_digits(return_X_y=True))
    return features[:1437], labels[:1437], features[1437:], labels[1437:]


def test_part_of_the_labels(digits):
    part = semi_supervised_probe(*digits, percent=5)
    assert part == semi_supervised_probe(*digits, percent=5)
    assert part != semi_supervised_probe(*digits, percent=5, seed=1)
    counts = digits[1].bincount()
    assert part["num_labels"] == (counts * 0.05).round().sum()
    everything = semi_supervised_probe(*digits, percent=100)
    assert everything["num_labels"] == 1437
    whole = sweep_linear_probe(*digits)
    assert everything["accuracy"] == pytest.approx(whole["accuracy"], abs=1.0)
    assert part["accuracy"] < whole["accuracy"] - 3


@pytest.mark.parametrize("percent", [0, -1, 101, 0.1])
def test_bad_percent(digits, percent):
    with pytest.raises(ValueError, match=rf"--percent {percent:g}: .*class \d has 14"):
        semi_supervised_probe(*digits, percent=percent)
