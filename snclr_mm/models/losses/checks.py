"""Checks of settings and shapes that losses and heads share."""

from torch import Tensor

OBJECTIVES = ("log_of_sum", "sum_of_logs")


def check_objective(objective: str) -> None:
    """Raise ValueError unless ``objective`` is one of :data:`OBJECTIVES`."""
    if objective not in OBJECTIVES:
        raise ValueError(
            f"objective={objective!r} is unknown: use one of {OBJECTIVES} "
            "(config key model.head.objective)."
        )


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless ``value``, of config key ``name``, is finite and > 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value} must be a finite number above 0.")


def check_share(key: str, value: float | str, *words: str) -> None:
    """Raise ValueError unless ``value`` of model.head is in [0, 1], or a word."""
    if value not in words and (isinstance(value, str) or not 0 <= value <= 1):
        allowed = " or ".join(["between 0 and 1", *map(repr, words)])
        raise ValueError(f"model.head.{key}={value!r} must be {allowed}.")


def check_query_and_key(query: Tensor, key: Tensor, dims: int = 3) -> None:
    """Raise ValueError unless queries [..., m, d] are views of keys [..., n, d].

    At most ``dims`` dimensions are allowed.
    """
    fits = 2 <= query.dim() == key.dim() <= dims and query.shape[:-2] == key.shape[:-2]
    fits = fits and query.shape[-1] == key.shape[-1]
    if not fits or key.shape[-2] < 1 or query.shape[-2] % key.shape[-2]:
        raise ValueError(
            f"query {list(query.shape)} and key {list(key.shape)} must both be [n, d] "
            "(or the query several views of the n images, one after the other)."
        )
