"""What search and loss share: settings of their versions, and falling back."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")


def check_backend(
    backend: str, precision: str, backends: tuple[str, ...], key: str
) -> None:
    """Raise ValueError unless both are known.

    Args:
        backend (str): One of ``backends``.
        precision (str): One of :data:`PRECISIONS`.
        backends (tuple[str, ...]): What is allowed.
        key (str): Config key up to the settings' names, for the error.
    """
    for name, value, allowed in (
        ("backend", backend, backends),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise ValueError(
                f"{name}={value!r} is unknown: use one of {allowed} (config key "
                f"{key}{name})."
            )


def fall_back(what: str, fast: Callable[[], T], plain: Callable[[], T]) -> T:
    """Call ``fast``, or ``plain`` with one warning where that fails.

    What runs out of a device's memory is not tried the plain way, which needs more.
    """
    try:
        return fast()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        warnings.warn(
            f"The {what} failed, the plain one goes on: {error}", stacklevel=3
        )
        return plain()
