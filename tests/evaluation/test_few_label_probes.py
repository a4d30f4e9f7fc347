import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from snclr_mm.evaluation import (
    few_shot_accuracies,
    semi_supervised_probe,
    sweep_linear_probe,
)


def few_shot_probe(*data, **settings):
    """Mean over the draws."""
    return np.mean(few_shot_accuracies(*map(torch.as_tensor, data), **settings))


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return features[:1437], labels[:1437], features[1437:], labels[1437:]


@pytest.fixture(scope="module")
def tensors(digits):
    return [torch.as_tensor(array) for array in digits]


@pytest.fixture(scope="module")
def everything(tensors):
    """Accuracy on all labels."""
    return sweep_linear_probe(*tensors)["accuracy"]


def test_on_real_digits(digits, everything):
    few = few_shot_probe(*digits, draws=1)
    assert 85 < everything < 97  # logistic regression on these pixels
    assert 60 < few < everything - 3
    assert few_shot_probe(*digits, draws=1) == few  # the draws are fixed


def test_draws_differ_and_are_averaged(digits, tensors):
    accuracies = few_shot_accuracies(*tensors, per_class=1, draws=3)
    assert len(set(accuracies)) == 3
    assert few_shot_probe(*digits, per_class=1, draws=3) == np.mean(accuracies)
    assert max(accuracies) < few_shot_probe(*digits, per_class=20, draws=1)


def test_too_few_images_of_a_class(digits):
    features, labels, *test = digits
    with pytest.raises(ValueError, match=r"per_class=10 .* class \d has [0-9] images"):
        few_shot_probe(features[:50], labels[:50], *test)


@pytest.mark.parametrize("change", [dict(per_class=0), dict(draws=0)])
def test_bad_settings(digits, change):
    with pytest.raises(ValueError, match="must be at least 1"):
        few_shot_probe(*digits, **change)


def test_part_of_the_labels(tensors, everything):
    part = semi_supervised_probe(*tensors, percent=5)
    assert part == semi_supervised_probe(*tensors, percent=5)
    assert part != semi_supervised_probe(*tensors, percent=5, seed=1)
    counts = tensors[1].bincount()
    assert part["num_labels"] == (counts * 0.05).round().sum()
    whole = semi_supervised_probe(*tensors, percent=100)
    assert whole["num_labels"] == 1437
    assert whole["accuracy"] == pytest.approx(everything, abs=1.0)
    assert part["accuracy"] < everything - 3


@pytest.mark.parametrize("percent", [0, -1, 101, 0.1])
def test_bad_percent(tensors, percent):
    with pytest.raises(ValueError, match=rf"--percent {percent:g}: .*class \d has 14"):
        semi_supervised_probe(*tensors, percent=percent)


def test_features_that_are_not_finite(tensors):
    """Also if they are not drawn."""
    features, *others = tensors
    features = features.clone()
    features[::100] = torch.inf
    message = "15 of 1437 features of the training images are not finite"
    with pytest.raises(ValueError, match=message):
        few_shot_probe(features, *others, per_class=1, draws=1)
    with pytest.raises(ValueError, match=message):
        semi_supervised_probe(features, *others, percent=1)
