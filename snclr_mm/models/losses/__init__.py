"""Objectives as pure functions."""

from .checks import OBJECTIVES, check_objective, check_positive
from .info_nce import info_nce
from .soft_neighbor_loss import Gathered, gather, soft_neighbor_loss

__all__ = [
    "OBJECTIVES",
    "Gathered",
    "check_objective",
    "check_positive",
    "gather",
    "info_nce",
    "soft_neighbor_loss",
]
