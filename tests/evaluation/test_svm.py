import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import precision_recall_curve
from sklearn.svm import LinearSVC

from snclr_mm.evaluation import largest_shot, linear_svm, low_shot_svm
from snclr_mm.evaluation.svm import COSTS, average_precision, fit_svms


@pytest.fixture(scope="module")
def digits():
    features, labels = map(torch.as_tensor, load_digits(return_X_y=True))
    return features[:400], labels[:400], features[1597:], labels[1597:]


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
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(40, 3, 2, generator=generator)
    targets = torch.randint(-1, 2, (40, 2), generator=generator)
    values = average_precision(scores, targets)
    assert values.shape == (3, 2)
    for g in range(3):
        for k in range(2):
            expected = naive_average_precision(
                scores[:, g, k].tolist(), targets[:, k].tolist()
            )
            assert float(values[g, k]) == pytest.approx(expected, abs=1e-6)
    # scikit-learn's curve, interpolated.
    precision, recall, _ = precision_recall_curve(
        targets[:, 0] == 1, torch.where(targets[:, 0] == -1, -9.0, scores[:, 0, 0])
    )
    area = -(np.diff(recall) * np.maximum.accumulate(precision)[:-1]).sum()
    assert float(values[0, 0]) == pytest.approx(area, abs=1e-6)
    assert average_precision(scores[:, 0], torch.zeros(40, 2)).isnan().all()


def test_equals_liblinear(digits):
    """One class of each cost, on images that are used and images that are not."""
    x, y, _, _ = digits
    x = F.pad(F.normalize(x.float(), dim=1), (0, 1), value=1.0)
    used = torch.rand(len(x), 10, generator=torch.Generator().manual_seed(0)) < 0.7
    weight = fit_svms(x, F.one_hot(y) == 1, used)
    assert weight.shape == (65, len(COSTS), 10)
    for g, cost in list(enumerate(COSTS))[::4]:
        rows, sign = used[:, 3], 2 * (y == 3).long() - 1
        svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, tol=1e-6, max_iter=10000)
        svm.fit(x[rows, :64].numpy(), sign[rows].numpy())
        expected = torch.as_tensor(np.append(svm.coef_, svm.intercept_)).float()
        torch.testing.assert_close(weight[:, g, 3], expected, rtol=0.02, atol=0.005)


def test_full_protocol(digits):
    x, y, test_x, test_y = digits
    result = linear_svm(*digits)
    assert len(result["ap"]) == len(result["C"]) == 10
    assert result["mean_ap"] == pytest.approx(np.mean(result["ap"]))
    assert 85 < result["mean_ap"] < 99
    # Labels are one-vs-rest targets.
    targets = F.one_hot(y), F.one_hot(test_y)
    assert linear_svm(x, targets[0], test_x, targets[1]) == result
    # Other test labels choose no other C.
    assert linear_svm(x, y, test_x, (test_y + 1) % 10)["C"] == result["C"]
    noise = torch.randn_like(x), y, torch.randn_like(test_x), test_y
    assert linear_svm(*noise)["mean_ap"] < 25


def test_difficult_images(digits):
    """Ignored where they are tested, negatives where they train."""
    x, y, test_x, test_y = digits
    targets, test_targets = F.one_hot(y), F.one_hot(test_y)
    plain = linear_svm(x, targets, test_x, test_targets)
    hidden = test_targets.clone()
    hidden[:50] = -1
    result = linear_svm(x, targets, test_x, hidden)
    assert result == linear_svm(x, targets, test_x[50:], test_targets[50:])
    difficult = targets.clone()
    difficult[targets == 0] = -1
    assert linear_svm(x, difficult, test_x, test_targets) == plain


def test_classes_without_test_images(digits):
    x, y, test_x, test_y = digits
    known = test_y != 4
    result = linear_svm(x, y, test_x[known], test_y[known])
    assert result["ap"][4] is None
    others = [ap for ap in result["ap"] if ap is not None]
    assert result["mean_ap"] == pytest.approx(np.mean(others))


def test_low_shot(digits):
    one = low_shot_svm(*digits, shots=1, draws=3)
    eight = low_shot_svm(*digits, shots=8, draws=3)
    assert 40 < one["mean_ap"] < eight["mean_ap"] - 10 < 90
    assert one == low_shot_svm(*digits, shots=1, draws=3)
    assert len(set(one["draws"])) == 3
    assert one["mean_ap"] == pytest.approx(np.mean(one["draws"]))
    assert one["std"] == pytest.approx(np.std(one["draws"]), rel=1e-3)
    by_cost = eight["mean_ap_by_cost"]
    assert by_cost[f"{eight['C']:g}"] == pytest.approx(eight["mean_ap"])
    assert len(by_cost) == len(COSTS)
    # Other test labels choose no other C.
    x, y, test_x, test_y = digits
    shifted = low_shot_svm(x, y, test_x, (test_y + 1) % 10, shots=8, draws=3)
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
        linear_svm(x[:20], y[:20], *test)
    with pytest.raises(ValueError, match="test images have class 9"):
        linear_svm(x[y < 9], y[y < 9], *test)
