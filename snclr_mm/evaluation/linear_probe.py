from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .features import check_finite

#: Inverse L2 strengths C that are tried; the best is chosen on held-out training data.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
#: What is taken below 10 images per class, too few to choose on a part of them.
DEFAULT_STRENGTH = 0.1


class LogisticRegressions(NamedTuple):
    """Fitted classifiers, one per L2 strength; their features are standardised."""

    mean: Tensor  # [C]
    std: Tensor  # [C]
    weight: Tensor  # [C, G, K]
    bias: Tensor  # [G, K]

    def evaluate(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Accuracy (percent) and mean cross-entropy of each classifier, [G] each.

        Labels of -1 are never right, and not part of the cross-entropy.
        """
        correct, entropy = features.new_zeros(2, len(self.bias)).double()
        for x, y in zip(features.split(4096), labels.split(4096), strict=True):
            logits = _apply((x - self.mean) / self.std, self.weight) + self.bias
            correct += (logits.argmax(dim=2) == y[:, None]).sum(dim=0)
            entropy += _cross_entropy(logits, y).sum(dim=0)
        return 100 * correct / len(labels), entropy / len(labels)


@torch.enable_grad()
def fit_logistic_regressions(
    features: Tensor, labels: Tensor, num_classes: int, chunk_size: int = 2**22
) -> LogisticRegressions:
    """Fit logistic regressions of all :data:`STRENGTHS` at once.

    As scikit-learn's LogisticRegression: minimise C times the summed cross-entropy plus
    half the squared weights; the bias is free.

    The products of all strengths are one, and one L-BFGS (``torch.optim``) serves all:
    in the features' principal axes, each divided by the root of a bound on its
    curvature, the problems are well conditioned whatever the features and the strength.
    The bound is Böhning's (Multinomial logistic regression algorithm, 1992).

    Args:
        features (Tensor): [n, C], float32.
        labels (Tensor): [n], int64, 0 to ``num_classes`` - 1.
        num_classes (int): K.
        chunk_size (int): Logits held at a time.
    """
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    # A constant feature has no deviation but rounding errors.
    std = torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))
    x = (features - mean) / std
    n, width = x.shape
    if n < width:  # the weights lie in the span of the rows
        axes = torch.linalg.svd(x, full_matrices=False)[2].T
    else:
        axes = torch.linalg.eigh((x.T @ x).double())[1].to(x)
    x = x @ axes
    # The objective is divided by n C.
    penalty = 1 / (n * x.new_tensor(STRENGTHS))
    curvature = 0.5 * x.square().mean(dim=0)[:, None]
    scale = (curvature + penalty).rsqrt()[..., None]
    shape = len(STRENGTHS), num_classes
    rows = max(1, chunk_size // (shape[0] * shape[1]))

    v, bias = x.new_zeros(axes.shape[1], *shape), x.new_zeros(shape)
    optimizer = torch.optim.LBFGS(
        [v, bias], max_iter=100, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        weight = (scale * v).requires_grad_()
        bias.requires_grad_().grad = None
        total = (penalty[:, None] / 2 * weight.detach().square()).sum()
        for part, target in zip(x.split(rows), labels.split(rows), strict=True):
            loss = _cross_entropy(_apply(part, weight) + bias, target).sum() / n
            loss.backward()
            total += loss.detach()
        v.grad = scale * (weight.grad + penalty[:, None] * weight.detach())
        return total

    optimizer.step(closure)
    return LogisticRegressions(mean, std, _apply(axes, scale * v), bias.detach())


def _apply(features: Tensor, weight: Tensor) -> Tensor:
    """Products of features [n, C] and many models' weights [C, G, K]: [n, G, K]."""
    return (features @ weight.flatten(1)).unflatten(1, weight.shape[1:])


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of logits [n, G, K] and labels [n], -1 for none: [n, G]."""
    target = labels[:, None].expand(logits.shape[:2])
    logits = logits.transpose(1, 2)
    return F.cross_entropy(logits, target, reduction="none", ignore_index=-1)


def sweep_linear_probe(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    seed: int = 0,
) -> dict:
    """Linear probe with all candidates' results.

    As in CLIP's linear probes (Radford et al., 2021), logistic regressions with a grid
    of L2 strengths are fitted to frozen features by L-BFGS. The strength is the one
    with the lowest cross-entropy on a held-out fifth of each class of the training data
    (the mean of five draws below 1000 images), or :data:`DEFAULT_STRENGTH` below 10
    images per class; then all training data are used. The test data choose nothing.

    Args:
        features (Tensor): Training features, [n, C]; standardised here.
        labels (Tensor): Their classes, [n].
        test_features (Tensor): [m, C].
        test_labels (Tensor): [m].
        seed (int): Of the held-out draws. Defaults to 0.

    Returns:
        dict: ``accuracy`` on the test data (percent), the chosen ``C``, and
        ``candidates``: for each C its ``test`` accuracy, and ``held_out`` accuracy and
        ``held_out_loss`` if these were to choose by.

    Raises:
        ValueError: If the training data have fewer than two classes, or a feature is
            not finite.
    """
    features, test_features = features.float(), test_features.float()
    check_finite(features, "the training images")
    check_finite(test_features, "the test images")
    classes, labels = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"A linear probe needs at least 2 classes, its {len(labels)} training "
            f"images have {len(classes)}."
        )
    # A class that only the test data have is never predicted.
    test_labels = torch.where(
        torch.isin(test_labels, classes), torch.searchsorted(classes, test_labels), -1
    )
    fitted = fit_logistic_regressions(features, labels, len(classes))
    columns = {"C": STRENGTHS}
    columns["test"] = fitted.evaluate(test_features, test_labels)[0].tolist()
    if len(labels) < 10 * len(classes):
        best = STRENGTHS.index(DEFAULT_STRENGTH)
    else:
        draws = range(seed, seed + (1 if len(labels) >= 1000 else 5))
        parts = [torch.stack(_hold_out(features, labels, draw)) for draw in draws]
        accuracy, entropy = torch.stack(parts).mean(dim=0)
        columns |= {"held_out": accuracy.tolist(), "held_out_loss": entropy.tolist()}
        best = int(entropy.argmin())
    candidates = [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    accuracy = columns["test"][best]
    return {"accuracy": accuracy, "C": STRENGTHS[best], "candidates": candidates}


def _hold_out(features: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Fit to four fifths of each class, evaluate on the rest."""
    counts = labels.bincount()
    held_out = torch.zeros_like(labels, dtype=torch.bool)
    held_out[draw_per_class(labels, (counts / 5).round().long(), seed)] = True
    fitted = fit_logistic_regressions(
        features[~held_out], labels[~held_out], len(counts)
    )
    return fitted.evaluate(features[held_out], labels[held_out])


def draw_per_class(labels: Tensor, counts: Tensor, seed: int) -> np.ndarray:
    """Draw rows of each class without replacement: ``counts`` of those that occur."""
    labels = labels.cpu().numpy()
    generator = np.random.default_rng(seed)
    return np.concatenate(
        [
            generator.choice(np.flatnonzero(labels == label), count, replace=False)
            for label, count in zip(np.unique(labels), counts.tolist(), strict=True)
        ]
    )
