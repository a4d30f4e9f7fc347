"""Objectives as pure functions."""

from .checks import OBJECTIVES, check_objective, check_positive, check_share
from .info_nce import info_nce
from .mean_shift_loss import mean_shift_loss, mix_neighbors
from .nearest_neighbor_loss import nearest_neighbor_loss
from .relational_loss import check_relation, relational_loss
from .soft_neighbor_loss import Gathered, gather, soft_neighbor_loss

__all__ = [
    "OBJECTIVES",
    "Gathered",
    "check_objective",
    "check_positive",
    "check_relation",
    "check_share",
    "gather",
    "info_nce",
    "mean_shift_loss",
    "mix_neighbors",
    "nearest_neighbor_loss",
    "relational_loss",
    "soft_neighbor_loss",
]
