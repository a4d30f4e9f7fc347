import numpy as np
import pytest
from sklearn.datasets import load_digits

from snclr_mm.evaluation import few_shot_accuracies, few_shot_probe, linear_probe


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return features[:1437], labels[:1437], features[1437:], labels[1437:]


def test_on_real_digits(digits):
    everything = linear_probe(*digits)
    few = few_shot_probe(*digits, draws=2)
    assert 85 < everything < 97  # logistic regression on these pixels
    assert 60 < few < everything - 3
    assert few_shot_probe(*digits, draws=2) == few  # the draws are fixed


def test_draws_differ_and_are_averaged(digits):
    accuracies = few_shot_accuracies(*digits, per_class=1, draws=3)
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
