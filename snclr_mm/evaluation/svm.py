from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .features import check_finite

#: Values of C that are tried, those of Goyal et al.'s and MMSelfSup's benchmarks.
COSTS = (*(0.5**k for k in range(19, 3, -1)), 1.0, 10.0, 100.0)
#: Positives per class of the low-shot protocol.
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)


def linear_svm(
    features: Tensor, targets: Tensor, test_features: Tensor, test_targets: Tensor
) -> dict:
    """Mean average precision of linear SVMs, one per class: the VOC07 protocol.

    As Goyal et al. (Scaling and Benchmarking Self-Supervised Visual Representation
    Learning, ICCV 2019) and MMSelfSup: unit features, squared hinge loss, positives
    weigh 2, C chosen per class by scikit-learn's average precision in 3-fold
    cross-validation, VOC's on the test images. In training difficult images count as
    negatives, in testing they are ignored.

    Args:
        features (Tensor): Training features, [n, C].
        targets (Tensor): [n, K]: 1 where the image has the class, else 0, or -1 where
            it is difficult; or labels [n], each class then against the rest.
        test_features (Tensor): [m, C].
        test_targets (Tensor): [m, K] or [m], likewise.

    Returns:
        dict: ``mean_ap`` over the classes that the test images have (percent), and per
        class ``ap`` (None without test images) and ``C``.

    Raises:
        ValueError: If a class has fewer than 3 training images with or without it, or a
            feature is not finite.
    """
    from sklearn.model_selection import GridSearchCV

    x, y, test_x, test_y = _prepare(features, targets, test_features, test_targets)
    present = y == 1
    counts = np.minimum(present.sum(axis=0), (~present).sum(axis=0))
    if counts.min() < 3:
        raise ValueError(
            "svm: 3-fold cross-validation needs 3 training images with each class and "
            f"3 without; class {counts.argmin()} has {counts.min()}."
        )

    def evaluate(c: int) -> tuple[float, float]:
        search = GridSearchCV(
            _build_svm(), {"C": COSTS}, scoring="average_precision", cv=3
        )
        search.fit(x, present[:, c])
        scores = search.decision_function(test_x)[:, None]
        return average_precision(scores, test_y[:, c])[0], search.best_params_["C"]

    ap, costs = zip(*_for_each_class(evaluate, y.shape[1]), strict=True)
    return {
        "mean_ap": float(100 * np.nanmean(ap)),
        "ap": [None if np.isnan(value) else float(100 * value) for value in ap],
        "C": list(costs),
    }


def low_shot_svm(
    features: Tensor,
    targets: Tensor,
    test_features: Tensor,
    test_targets: Tensor,
    shots: int,
    draws: int = 5,
) -> dict:
    """:func:`linear_svm` on a few images per class: the low-shot VOC07 protocol.

    Each class has k positives and up to (K - 1) k negatives, drawn for it; images where
    it is difficult are not drawn. The benchmarks cited above report the C that is best
    on the test images; here the training images that were not drawn choose it, and the
    result of every C is returned.

    Args:
        features, targets, test_features, test_targets: As for :func:`linear_svm`.
        shots (int): k.
        draws (int): Random draws (seeds 0, 1, ...). Defaults to 5.

    Returns:
        dict: ``mean_ap`` and ``std`` over the draws (percent), ``C``, ``draws`` (the
        mean AP of each) and ``mean_ap_by_cost``.

    Raises:
        ValueError: If a class has too few positives or no negatives, if none has a
            positive left over, or if a feature is not finite.
    """
    x, y, test_x, test_y = _prepare(features, targets, test_features, test_targets)
    largest = largest_shot(torch.as_tensor(y))
    if not 1 <= shots <= largest:
        raise ValueError(
            f"svm-low-shot: {shots} positives per class (--shots) must be between 1 "
            f"and {largest}: each class needs as many, and one must be left over."
        )
    negatives = (y == 0).sum(axis=0)
    if negatives.min() == 0:
        raise ValueError(
            f"svm-low-shot: each training image has class {negatives.argmin()}, so its "
            "SVM has no negatives."
        )
    aps = []  # of the images that were not drawn and of the test images, [2, K, G]
    for seed in range(draws):
        drawn = _draw(y, shots, seed)
        left_over = np.where(drawn, -1, y)

        def evaluate(c: int, drawn=drawn, left_over=left_over) -> list[np.ndarray]:
            rows = drawn[:, c]
            weight, bias = fit_svms(x[rows], y[rows, c] == 1)
            return [
                average_precision(part @ weight + bias, labels[:, c])
                for part, labels in ((x, left_over), (test_x, test_y))
            ]

        aps.append(_for_each_class(evaluate, y.shape[1]))
    held_out, test = 100 * np.nanmean(aps, axis=1).swapaxes(0, 1)  # [draws, G] each
    best = held_out.mean(axis=0).argmax()
    by_cost = zip(COSTS, test.mean(axis=0).tolist(), strict=True)
    return {
        "mean_ap": float(test[:, best].mean()),
        "std": float(test[:, best].std()),
        "C": COSTS[best],
        "draws": test[:, best].tolist(),
        "mean_ap_by_cost": {f"{cost:g}": value for cost, value in by_cost},
    }


def largest_shot(targets: Tensor) -> int:
    """The most positives per class that :func:`low_shot_svm` can draw."""
    if targets.dim() == 1:
        targets = F.one_hot(targets)
    positives = (targets == 1).sum(dim=0)
    return min(int(positives.min()), int(positives.max()) - 1)


def fit_svms(
    features: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit an SVM with each of the :data:`COSTS`: weights [C, G] and biases [G].

    ``positive`` says which of the features [n, C] have the class, bool [n].
    """
    svms = [_build_svm(C=cost).fit(features, positive) for cost in COSTS]
    weight = np.concatenate([svm.coef_ for svm in svms]).T
    return weight, np.concatenate([svm.intercept_ for svm in svms])


def _build_svm(**kwargs):
    from sklearn.svm import LinearSVC  # pretraining does without scikit-learn

    # In the primal, liblinear reaches the optimum for large C as well.
    return LinearSVC(class_weight={True: 2, False: 1}, dual=False, **kwargs)


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under the interpolated precision-recall curve, as VOC has it since 2010.

    Of scores [n, G] of G classifiers of one class and targets [n], 1, 0 or -1
    (ignored); [G], NaN where nothing is 1.
    """
    scores, positive = scores[targets != -1], targets[targets != -1] == 1
    if not positive.any():
        return np.full(scores.shape[1], np.nan)
    hit = positive[np.argsort(-scores, axis=0)]
    precision = hit.cumsum(axis=0) / np.arange(1, len(hit) + 1)[:, None]
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    return (interpolated * hit).sum(axis=0) / positive.sum()


def _prepare(*data: Tensor) -> tuple[np.ndarray, ...]:
    """Unit features [n, C], targets [n, K], and those of the test images."""
    features, targets, test_features, test_targets = data
    check_finite(features, "the training images")
    check_finite(test_features, "the test images")
    if targets.dim() == 1:
        classes = int(targets.max()) + 1
        if test_targets.max() >= classes:
            raise ValueError(
                f"svm: the test images have class {int(test_targets.max())}, which no "
                "training image has."
            )
        targets = F.one_hot(targets, classes)
        test_targets = F.one_hot(test_targets, classes)
    # liblinear computes in double precision.
    features, test_features = (
        F.normalize(part.double(), dim=1) for part in (features, test_features)
    )
    arrays = features, targets, test_features, test_targets
    return tuple(array.cpu().numpy() for array in arrays)


def _for_each_class(evaluate: Callable[[int], tuple], num_classes: int) -> list:
    """Evaluate all classes, on as many threads as PyTorch uses."""
    from joblib import Parallel, delayed  # comes with scikit-learn

    parallel = Parallel(n_jobs=torch.get_num_threads(), prefer="threads")
    return parallel(delayed(evaluate)(c) for c in range(num_classes))


def _draw(targets: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Draw k positives and up to (K - 1) k negatives of each class: bool, [n, K]."""
    generator = np.random.default_rng(seed)
    drawn = np.zeros(targets.shape, dtype=bool)
    for c, column in enumerate(targets.T):
        for label, count in ((1, k), (0, (targets.shape[1] - 1) * k)):
            rows = np.flatnonzero(column == label)
            count = min(count, len(rows))
            drawn[generator.choice(rows, count, replace=False), c] = True
    return drawn
