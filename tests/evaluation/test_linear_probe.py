import warnings

import numpy as np
import pytest
import torch
from helpers.tiny import REPOSITORY
from mmpretrain.datasets import FashionMNIST
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from snclr_mm.evaluation import sweep_linear_probe
from snclr_mm.evaluation.linear_probe import (
    DEFAULT_STRENGTH,
    STRENGTHS,
    draw_per_class,
    fit_logistic_regressions,
)

FASHION_MNIST = REPOSITORY / "data/fashion-mnist"


def linear_probe(*arrays):
    return sweep_linear_probe(*map(torch.as_tensor, arrays))["accuracy"]


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return features[:1437], labels[:1437], features[1437:], labels[1437:]


@pytest.fixture(scope="module")
def result(digits):
    """Of the digits, for comparison."""
    return sweep_linear_probe(*map(torch.as_tensor, digits))


@pytest.fixture(scope="module")
def fashion():
    if not (FASHION_MNIST / "train-images-idx3-ubyte").exists():
        pytest.skip("tools/data/prepare_fashion_mnist.py has not been run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = FashionMNIST(str(FASHION_MNIST), indices=1600)
    infos = [data.get_data_info(i) for i in range(1600)]
    features = np.stack([np.asarray(info["img"]).ravel() / 255 for info in infos])
    labels = np.array([int(info["gt_label"]) for info in infos])
    return features[:400], labels[:400], features[600:], labels[600:]


@pytest.mark.parametrize("data", ["digits", "fashion"])
def test_each_candidate_equals_scikit_learn(data, request):
    features, labels, test_features, test_labels = request.getfixturevalue(data)
    arrays = features, labels, test_features, test_labels
    result = sweep_linear_probe(*map(torch.as_tensor, arrays))
    scaler = StandardScaler().fit(features)
    candidates = {c["C"]: c for c in result["candidates"]}
    assert tuple(candidates) == STRENGTHS
    for strength in (1e-4, 1e-3, 1e-2, 0.1):
        expected = LogisticRegression(C=strength, max_iter=2000)
        expected.fit(scaler.transform(features), labels)
        score = 100 * expected.score(scaler.transform(test_features), test_labels)
        assert candidates[strength]["test"] == pytest.approx(score, abs=0.31)
    best = max(c["test"] for c in candidates.values())
    assert result["accuracy"] == candidates[result["C"]]["test"] > best - 1.5


@pytest.mark.parametrize("n, width", [(60, 6), (20, 40)])
def test_fits_are_optimal(n, width):
    """Where the gradient vanishes, in double precision, the convex loss is least."""
    # Correlated features of very different scales, some rows at a time.
    x = torch.randn(n, width) @ torch.randn(width, width) * torch.logspace(-1, 1, width)
    labels = torch.arange(n) % 3
    fitted = fit_logistic_regressions(x, labels, 3, chunk_size=200)
    assert fitted.weight.shape == (width, 9, 3) and fitted.bias.shape == (9, 3)
    x = (x.double() - x.double().mean(dim=0)) / x.double().std(dim=0, correction=0)
    for g, strength in enumerate(STRENGTHS):
        weight, bias = fitted.weight[:, g].double(), fitted.bias[g].double()
        residual = (x @ weight + bias).softmax(dim=1) - torch.eye(3)[labels]
        scale = strength * (x.T @ torch.eye(3)[labels].double()).norm()
        gradient = strength * x.T @ residual + weight
        assert gradient.norm() < 2e-3 * scale
        assert residual.sum(dim=0).abs().max() < 2e-3 * n


@pytest.mark.parametrize("part, name", [(0, "training"), (2, "test")])
@pytest.mark.parametrize("rows", [slice(3, 4), slice(None)])
def test_features_that_are_not_finite(part, name, rows):
    data = [torch.randn(20, 3), torch.arange(20) % 2] * 2
    data[part] = data[part].clone()
    data[part][rows] = torch.nan
    count = 1 if rows.start else 20
    message = f"{count} of 20 features of the {name} images are not finite"
    with pytest.raises(ValueError, match=message):
        sweep_linear_probe(*data)


def test_strength_is_chosen_by_held_out_loss_alone(digits, result):
    tensors = [torch.as_tensor(array) for array in digits]
    losses = {c["held_out_loss"]: c["C"] for c in result["candidates"]}
    assert result["C"] == losses[min(losses)]
    tensors[3] = (tensors[3] + 1) % 10  # other test labels
    other = sweep_linear_probe(*tensors)
    assert other["C"] == result["C"]
    assert other["accuracy"] < 10 < 85 < result["accuracy"]


def test_too_few_images_to_hold_out(digits):
    features, labels, *test = map(torch.as_tensor, digits)
    result = sweep_linear_probe(features[:60], labels[:60], *test)
    assert result["C"] == DEFAULT_STRENGTH
    assert "held_out" not in result["candidates"][0]
    assert 50 < result["accuracy"] < 95


def test_scale_and_constant_features_change_nothing(digits, result):
    features, labels, test_features, test_labels = digits
    padded = [
        np.pad(part * 1e4, ((0, 0), (0, 3)), constant_values=0.1)
        for part in (features, test_features)
    ]
    assert linear_probe(padded[0], labels, padded[1], test_labels) == (
        pytest.approx(result["accuracy"], abs=0.3)
    )


def test_class_numbers_may_have_gaps(digits, result):
    features, labels, test_features, test_labels = digits
    names = np.array([3, 5, 8, 9, 20, 21, 40, 41, 99, 100])
    assert (
        linear_probe(features, names[labels], test_features, names[test_labels])
        == (result["accuracy"])
    )
    # A class without training images is never right.
    known = labels != 9
    accuracy = linear_probe(features[known], labels[known], test_features, test_labels)
    share = 100 * (test_labels != 9).mean()
    assert share - 15 < accuracy <= share


def test_useless_features_stay_at_chance(digits):
    _, labels, _, test_labels = digits
    noise = np.random.default_rng(0).normal(size=(1437, 8))
    test_noise = np.random.default_rng(1).normal(size=(len(test_labels), 8))
    assert linear_probe(noise, labels, test_noise, test_labels) < 20


def test_one_class():
    x, y = torch.randn(5, 2), torch.full((5,), 4)
    with pytest.raises(ValueError, match=r"2 classes, its 5 training images have 1"):
        sweep_linear_probe(x, y, x, y)


def test_draw_per_class():
    labels = torch.tensor([7, 2, 7, 2, 7, 5, 7])
    classes, counts = labels.unique(return_counts=True)
    assert classes.tolist() == [2, 5, 7] and counts.tolist() == [2, 1, 4]
    asked = torch.tensor([1, 0, 3])
    rows = draw_per_class(labels, asked, seed=0)
    assert len(set(rows.tolist())) == 4
    assert labels[rows].tolist() == [2, 7, 7, 7]
    assert draw_per_class(labels, asked, seed=0).tolist() == rows.tolist()
    drawn = {tuple(draw_per_class(labels, asked, seed)) for seed in range(20)}
    assert len(drawn) > 5
