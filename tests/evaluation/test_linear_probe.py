import numpy as np
import pytest
from sklearn.datasets import load_digits

from snclr_mm.evaluation import few_shot_probe, linear_probe


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return features[:1437], labels[:1437], features[1437:], labels[1437:]


def test_probes_on_real_digits(digits):
    everything = linear_probe(*digits)
    few = few_shot_probe(*digits, draws=2)
    assert 85 < everything < 97  # logistic regression on these pixels
    assert 60 < few < everything - 3
    assert few_shot_probe(*digits, draws=2) == few  # the draws are fixed


def test_useless_features_stay_at_chance(digits):
    _, labels, _, test_labels = digits
    noise = np.random.default_rng(0).normal(size=(1437, 8))
    test_noise = np.random.default_rng(1).normal(size=(len(test_labels), 8))
    assert linear_probe(noise, labels, test_noise, test_labels) < 20


def test_too_few_images_of_a_class(digits):
    features, labels, *test = digits
    with pytest.raises(ValueError, match=r"per_class=10 .* class \d has [0-9] images"):
        few_shot_probe(features[:50], labels[:50], *test)
