"""SNCLR for MMPretrain; importing this package registers its components."""

__version__ = "0.1.0"

from . import compat  # noqa: I001  (first: it makes mmpretrain importable)
from . import checkpoint_safety, datasets, engine, evaluation, models
from .evaluation import embed, list_images
from .registry import register_configs

register_configs()

__all__ = [
    "__version__",
    "checkpoint_safety",
    "compat",
    "datasets",
    "embed",
    "engine",
    "evaluation",
    "list_images",
    "models",
]
