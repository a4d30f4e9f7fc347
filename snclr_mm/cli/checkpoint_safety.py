"""Loading checkpoints without running what they hold."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
    from numpy._core import multiarray
else:
    from numpy.core import multiarray


def load_checkpoints_safely(trust: bool = False) -> None:
    """Make every later ``torch.load`` of this process refuse to run code.

    A checkpoint is a pickle. Only tensors, plain containers and what MMEngine's message
    hub stores (NumPy scalars and HistoryBuffer) are loaded; MMEngine itself falls back
    to an unrestricted load, which this forbids.

    Args:
        trust (bool): Load anything instead, for files whose source one trusts
            (``--trust-checkpoint``). Defaults to False.
    """
    on, off = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if trust:
        on, off = off, on
    os.environ[on] = "1"
    os.environ.pop(off, None)
    types = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "uint32")]
    torch.serialization.add_safe_globals(
        [
            # With names, as MMEngine's own loading takes the bare classes off the list.
            *(
                (cls, f"{cls.__module__}.{cls.__qualname__}")
                for cls in (HistoryBuffer, np.ndarray, np.dtype, *types)
            ),
            # HistoryBuffer pickles its statistics as getattr(HistoryBuffer, name).
            (_history_buffer_method, "builtins.getattr"),
            # NumPy 1 and 2 call the same functions by different names.
            *(
                (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
                for core in ("core", "_core")
                for name in ("_reconstruct", "scalar")
            ),
        ]
    )


@contextmanager
def explain_refusal(source: str = "The checkpoint") -> Iterator[None]:
    """Turn torch's refusal to load ``source`` into an exit that names the option."""
    try:
        yield
    except UnpicklingError as error:
        raise SystemExit(
            f"{source} holds more than tensors and plain data: {error}\n"
            "If you trust its source, pass --trust-checkpoint."
        ) from None


def _history_buffer_method(owner: type, name: str):
    if owner is not HistoryBuffer or name not in ("mean", "max", "min", "current"):
        raise ValueError(f"A checkpoint may not use getattr({owner}, {name!r}).")
    return getattr(HistoryBuffer, name)
