import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .linear_solver import apply_linear, fit_linear

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
    weigh 2, C chosen per class by AP in 3-fold cross-validation. In training difficult
    images count as negatives, in testing they are ignored. Instead of a liblinear call
    per class, C and fold, :func:`fit_linear` finds the same optima at once.

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
        ValueError: If a class has fewer than 3 training images with or without it.
    """
    features, targets, test_features, test_targets = _prepare(
        features, targets, test_features, test_targets
    )
    present = targets == 1
    counts = torch.minimum(present.sum(dim=0), (~present).sum(dim=0))
    if counts.min() < 3:
        raise ValueError(
            "svm: 3-fold cross-validation needs 3 training images with each class and "
            f"3 without; class {int(counts.argmin())} has {int(counts.min())}."
        )
    everything = torch.ones_like(present)
    scores = features.new_empty(len(features), len(COSTS), targets.shape[1])
    for fold in _folds(present):
        weight = fit_svms(features, present, ~fold)
        scores = torch.where(fold[:, None], apply_linear(features, weight), scores)
    chosen = average_precision(scores, present.long()).argmax(dim=0)
    weight = fit_svms(features, present, everything)
    weight = weight[:, chosen, torch.arange(len(chosen))]
    ap = 100 * average_precision(test_features @ weight, test_targets)
    return {
        "mean_ap": float(ap.nanmean()),
        "ap": [None if value.isnan() else float(value) for value in ap],
        "C": [COSTS[i] for i in chosen],
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
        ValueError: If a class has too few positives, or none has one left over.
    """
    features, targets, test_features, test_targets = _prepare(
        features, targets, test_features, test_targets
    )
    largest = largest_shot(targets)
    if not 1 <= shots <= largest:
        raise ValueError(
            f"svm-low-shot: {shots} positives per class (--shots) must be between 1 "
            f"and {largest}: each class needs as many, and one must be left over."
        )
    held_out, test = [], []
    for seed in range(draws):
        drawn = _draw(targets, shots, seed)
        rows = drawn.any(dim=1)
        weight = fit_svms(features[rows], targets[rows] == 1, drawn[rows])
        for x, y, aps in (
            (features, targets.masked_fill(drawn, -1), held_out),
            (test_features, test_targets, test),
        ):
            precision = average_precision(apply_linear(x, weight), y)
            aps.append(100 * precision.nanmean(dim=1))
    best = int(torch.stack(held_out).mean(dim=0).argmax())
    test = torch.stack(test)
    by_cost = zip(COSTS, test.mean(dim=0).tolist(), strict=True)
    return {
        "mean_ap": float(test[:, best].mean()),
        "std": float(test[:, best].std(correction=0)),
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


def fit_svms(features: Tensor, positive: Tensor, used: Tensor) -> Tensor:
    """Fit an SVM for each class and each of :data:`COSTS`.

    The optimum of scikit-learn's ``LinearSVC(C=cost, class_weight={1: 2, -1: 1})``.

    Args:
        features (Tensor): [n, C], float32, a column of ones included: as in liblinear,
            the bias is penalised like the rest.
        positive (Tensor): Whether the image has the class, bool, [n, K].
        used (Tensor): Whether it takes part in the class' training, bool, [n, K].

    Returns:
        Tensor: [C, G, K], for G costs.
    """
    n = len(features)
    sign = positive.float() * 2 - 1
    importance = (positive.float() + 1) * used

    def loss(scores: Tensor, rows: slice) -> Tensor:
        hinge = (1 - sign[rows, None] * scores).relu().square()
        return (importance[rows, None] * hinge).sum() / n

    penalty = 1 / (n * features.new_tensor(COSTS))
    return fit_linear(
        features, penalty, sign.shape[1], loss, curvature=4.0, bias=False
    )[0]


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """Area under the interpolated precision-recall curve, as VOC has it since 2010.

    Args:
        scores (Tensor): [m, ..., K].
        targets (Tensor): 1, 0 or -1 (ignored), [m, K].

    Returns:
        Tensor: [..., K]; NaN where nothing is 1.
    """
    shape = (len(targets),) + (1,) * (scores.dim() - 2) + (-1,)
    targets = targets.view(shape).expand_as(scores)
    # The ignored come last, where they change nothing.
    order = scores.masked_fill(targets == -1, -torch.inf).argsort(
        dim=0, descending=True
    )
    hit = targets.gather(0, order) == 1
    rank = torch.arange(1, len(scores) + 1, device=scores.device).view((*shape[:-1], 1))
    precision = hit.cumsum(dim=0) / rank
    interpolated = precision.flip(0).cummax(dim=0)[0].flip(0)
    return (interpolated * hit).sum(dim=0) / hit.sum(dim=0)


def _prepare(
    features: Tensor, targets: Tensor, test_features: Tensor, test_targets: Tensor
) -> tuple[Tensor, ...]:
    """Unit features with a column of ones, and targets [n, K]."""
    if targets.dim() == 1:
        classes = int(targets.max()) + 1
        if test_targets.max() >= classes:
            raise ValueError(
                f"svm: the test images have class {int(test_targets.max())}, which no "
                "training image has."
            )
        targets = F.one_hot(targets, classes)
        test_targets = F.one_hot(test_targets, classes)
    features, test_features = (
        F.pad(F.normalize(part.float(), dim=1), (0, 1), value=1.0)
        for part in (features, test_features)
    )
    return features, targets, test_features, test_targets


def _folds(present: Tensor) -> list[Tensor]:
    """Three folds of each class, [n, K] each: True where the image is held out."""
    from sklearn.model_selection import StratifiedKFold  # pretraining does without

    folds = np.zeros((3, *present.shape), dtype=bool)
    for column, labels in enumerate(present.T.cpu().numpy()):
        parts = StratifiedKFold(3).split(labels, labels)
        for fold, (_, rows) in zip(folds, parts, strict=True):
            fold[rows, column] = True
    return list(torch.as_tensor(folds, device=present.device))


def _draw(targets: Tensor, k: int, seed: int) -> Tensor:
    """Draw k positives and up to (K - 1) k negatives of each class: bool, [n, K]."""
    generator = np.random.default_rng(seed)
    values = targets.cpu().numpy()
    drawn = np.zeros(values.shape, dtype=bool)
    for column, labels in enumerate(values.T):
        for label, count in ((1, k), (0, (values.shape[1] - 1) * k)):
            rows = np.flatnonzero(labels == label)
            count = min(count, len(rows))
            drawn[generator.choice(rows, count, replace=False), column] = True
    return torch.as_tensor(drawn, device=targets.device)
