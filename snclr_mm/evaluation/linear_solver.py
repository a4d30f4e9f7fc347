from collections.abc import Callable

import torch
from torch import Tensor


@torch.enable_grad()
def fit_linear(
    features: Tensor,
    penalty: Tensor,
    num_outputs: int,
    loss: Callable[[Tensor, slice], Tensor],
    curvature: float,
    bias: bool = True,
    max_iter: int = 100,
    chunk_size: int = 2**22,
) -> tuple[Tensor, Tensor]:
    """Fit many linear models to the same features at once.

    Minimises, over W_g [C, K] and b_g [K] of every model g,

        loss(X W_g + b_g) + penalty_g / 2 |W_g|^2

    The models' products are one, and one L-BFGS (``torch.optim``) serves all: in the
    features' principal axes, each divided by the root of a bound on its curvature, the
    problems are well conditioned whatever the features and the penalty. The bound is
    Böhning's (Multinomial logistic regression algorithm, 1992).

    Args:
        features (Tensor): X, [n, C], float.
        penalty (Tensor): One per model, [G], above 0.
        num_outputs (int): K.
        loss (Callable): Takes outputs [r, G, K] of the rows in a slice, and that slice;
            gives the sum of all models' losses, a scalar.
        curvature (float): Bound on the loss' second derivative by an output, if all
            rows' outputs change alike.
        bias (bool): Fit b, unpenalised; else it is 0. Defaults to True.
        max_iter (int): Of L-BFGS. Defaults to 100.
        chunk_size (int): Numbers of outputs held at a time.

    Returns:
        tuple[Tensor, Tensor]: W, [C, G, K], and b, [G, K].
    """
    n, width = features.shape
    if n < width:  # W lies in the span of the rows
        axes = torch.linalg.svd(features, full_matrices=False)[2].T
    else:
        axes = torch.linalg.eigh((features.T @ features).double())[1].to(features)
    rotated = features @ axes
    variance = rotated.square().mean(dim=0)[:, None]
    scale = (curvature * variance + penalty).rsqrt()[..., None]
    shape = len(penalty), num_outputs
    step = max(1, chunk_size // (shape[0] * shape[1]))

    v = features.new_zeros(axes.shape[1], *shape)
    b = features.new_zeros(shape)
    optimizer = torch.optim.LBFGS(
        [v, b] if bias else [v],
        max_iter=max_iter,
        tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        w = (scale * v).requires_grad_()
        b.requires_grad_(bias)
        b.grad = None
        total = (penalty[:, None] / 2 * w.detach().square()).sum()
        for start in range(0, n, step):
            rows = slice(start, start + step)
            outputs = apply_linear(rotated[rows], w) + b
            part = loss(outputs, rows)
            part.backward()
            total += part.detach()
        v.grad = scale * (w.grad + penalty[:, None] * w.detach())
        return total

    optimizer.step(closure)
    return apply_linear(axes, scale * v), b.detach()


def apply_linear(features: Tensor, weight: Tensor) -> Tensor:
    """Outputs of many linear models without bias, [n, G, K].

    Args:
        features (Tensor): [n, C].
        weight (Tensor): Of G models, [C, G, K].
    """
    return (features @ weight.flatten(1)).unflatten(1, weight.shape[1:])
