from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from snclr_mm.evaluation import largest_shot, linear_svm, low_shot_svm
from snclr_mm.evaluation.svm import COSTS, average_precision, fit_svms


@pytest.fixture(scope="module")
def digits():
    """Those from 0 to 4."""
    features, labels = map(torch.as_tensor, load_digits(n_class=5, return_X_y=True))
    return features[:200], labels[:200], features[801:], labels[801:]


@pytest.fixture(scope="module")
def plain(digits):
    """Result of the full protocol."""
    return linear_svm(*digits)


def naive_average_precision(scores, targets):
    """VOC's code, in plain loops: the area under the interpolated curve."""
    pairs = sorted(
        (-score, target)
        for score, target in zip(scores, targets, strict=True)
        if target != -1
    )
    hits, curve = 0, []
    for rank, (_, target) in enumerate(pairs, start=1):
        hits += target == 1
        curve.append((hits, hits / rank))
    area, before = 0.0, 0
    for i, (recalled, _) in enumerate(curve):
        area += (recalled - before) * max(precision for _, precision in curve[i:])
        before = recalled
    return area / hits


def test_average_precision():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(40, 3))
    targets = generator.integers(-1, 2, 40)
    values = average_precision(scores, targets)
    assert values.shape == (3,)
    for g in range(3):
        expected = naive_average_precision(scores[:, g].tolist(), targets.tolist())
        assert values[g] == pytest.approx(expected, abs=1e-9)
    # scikit-learn's curve, interpolated.
    used = targets != -1
    precision, recall, _ = precision_recall_curve(targets[used], scores[used, 0])
    area = -(np.diff(recall) * np.maximum.accumulate(precision)[:-1]).sum()
    assert values[0] == pytest.approx(area, abs=1e-9)
    assert np.isnan(average_precision(scores, np.zeros(40))).all()


def test_fits_are_optimal(digits):
    """The objective of each cost is the least that another optimiser finds."""
    x, y, _, _ = digits
    x = F.normalize(x.double(), dim=1).numpy()
    ones = np.pad(x, ((0, 0), (0, 1)), constant_values=1.0)
    positive = (y == 3).numpy()
    sign, importance = 2.0 * positive - 1, 1.0 + positive

    def objective(w, cost):
        hinge = (1 - sign * (ones @ w)).clip(min=0)
        gradient = w - 2 * cost * ones.T @ (importance * sign * hinge)
        return w @ w / 2 + cost * (importance * hinge**2).sum(), gradient

    weight, bias = fit_svms(x, positive)
    assert weight.shape == (64, len(COSTS)) and bias.shape == (len(COSTS),)
    options = dict(maxiter=10**5, maxfun=10**5, ftol=1e-14, gtol=1e-9)
    for g, cost in enumerate(COSTS):
        best = minimize(
            objective, np.zeros(65), cost, "L-BFGS-B", jac=True, options=options
        )
        value = objective(np.append(weight[:, g], bias[g]), cost)[0]
        assert value == pytest.approx(best.fun, rel=1e-3), cost


def test_cost_is_chosen_by_cross_validation(digits):
    """Of one class, in plain loops."""
    x, y, _, _ = digits
    features = F.normalize(x.double(), dim=1).numpy()
    present = (y == 3).numpy()
    means = []
    for cost in COSTS:
        aps = []
        for rows, held_out in StratifiedKFold(3).split(features, present):
            svm = LinearSVC(C=cost, class_weight={1: 2, 0: 1}, tol=1e-6, dual=False)
            svm.fit(features[rows], present[rows].astype(int))
            scores = svm.decision_function(features[held_out])
            aps.append(average_precision_score(present[held_out], scores))
        means.append(np.mean(aps))
    targets = torch.as_tensor(present).long()[:, None]
    assert linear_svm(x, targets, x, targets)["C"] == [COSTS[np.argmax(means)]]


def test_full_protocol(digits, plain):
    x, y, test_x, test_y = digits
    assert len(plain["ap"]) == len(plain["C"]) == 5
    assert plain["mean_ap"] == pytest.approx(np.mean(plain["ap"]))
    assert 85 < plain["mean_ap"] < 99.9
    # Labels are one-vs-rest targets.
    targets = F.one_hot(y), F.one_hot(test_y)
    assert linear_svm(x, targets[0], test_x, targets[1]) == plain
    # Other test labels choose no other C.
    assert linear_svm(x, y, test_x, (test_y + 1) % 5)["C"] == plain["C"]
    noise = torch.randn_like(x), y, torch.randn_like(test_x), test_y
    assert linear_svm(*noise)["mean_ap"] < 35


def test_difficult_images(digits, plain):
    """Ignored where they are tested, negatives where they train."""
    x, y, test_x, test_y = digits
    targets, test_targets = F.one_hot(y), F.one_hot(test_y)
    hidden = test_targets.clone()
    hidden[:50] = -1
    result = linear_svm(x, targets, test_x, hidden)
    assert result == linear_svm(x, targets, test_x[50:], test_targets[50:])
    difficult = targets.clone()
    difficult[targets == 0] = -1
    assert linear_svm(x, difficult, test_x, test_targets) == plain


def test_classes_without_test_images(digits):
    x, y, test_x, test_y = digits
    known = test_y != 3
    result = linear_svm(x, y, test_x[known], test_y[known])
    assert result["ap"][3] is None
    others = [ap for ap in result["ap"] if ap is not None]
    assert result["mean_ap"] == pytest.approx(np.mean(others))


def test_low_shot(digits):
    one = low_shot_svm(*digits, shots=1, draws=3)
    eight = low_shot_svm(*digits, shots=8, draws=3)
    assert 40 < one["mean_ap"] < eight["mean_ap"] - 10 < 90
    assert one == low_shot_svm(*digits, shots=1, draws=3)
    assert len(set(one["draws"])) == 3
    assert one["mean_ap"] == pytest.approx(np.mean(one["draws"]))
    assert one["std"] == pytest.approx(np.std(one["draws"]))
    by_cost = eight["mean_ap_by_cost"]
    assert by_cost[f"{eight['C']:g}"] == pytest.approx(eight["mean_ap"])
    assert len(by_cost) == len(COSTS)
    # Other test labels choose no other C.
    x, y, test_x, test_y = digits
    shifted = low_shot_svm(x, y, test_x, (test_y + 1) % 5, shots=8, draws=3)
    assert shifted["C"] == eight["C"]


def test_too_few_images(digits):
    x, y, *test = digits
    assert largest_shot(y) == y.bincount().min()
    assert largest_shot(torch.tensor([0, 0, 1, 1])) == 1
    with pytest.raises(ValueError, match=r"99 positives .*--shots.* between 1 and 3\d"):
        low_shot_svm(*digits, shots=99)
    with pytest.raises(ValueError, match="0 positives"):
        low_shot_svm(*digits, shots=0)
    with pytest.raises(
        ValueError, match=r"needs 3 training images .*class \d has [12]"
    ):
        linear_svm(x[:9], y[:9], *test)
    with pytest.raises(ValueError, match="test images have class 4"):
        linear_svm(x[y < 4], y[y < 4], *test)
    full = torch.ones(12, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="each training image has class 0"):
        low_shot_svm(x[:12], full, x[:12], full, shots=1)


@pytest.mark.parametrize("protocol", [linear_svm, partial(low_shot_svm, shots=1)])
@pytest.mark.parametrize("part, name", [(0, "training"), (2, "test")])
def test_features_that_are_not_finite(digits, protocol, part, name):
    data = list(digits)
    data[part] = data[part].clone()
    data[part][5:7, 3] = torch.nan
    size = len(data[part])
    message = f"2 of {size} features of the {name} images are not finite"
    with pytest.raises(ValueError, match=message):
        protocol(*data)
