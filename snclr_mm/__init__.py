"""SNCLR for MMPretrain; importing this package registers its components."""

__version__ = "0.1.0"

from . import compat  # noqa: I001  (first: it makes mmpretrain importable)
from . import checkpoint_safety, datasets, engine, evaluation, models
from .registry import register_all_modules, register_configs

register_configs()

__all__ = [
    "__version__",
    "checkpoint_safety",
    "compat",
    "datasets",
    "engine",
    "evaluation",
    "models",
    "register_all_modules",
]
