from .augment_data_preprocessor import AugmentDataPreprocessor
from .cosine_ema import ForeachCosineEMA
from .cross_attention_neck import CrossAttentionNeck
from .losses import info_nce, soft_neighbor_loss
from .mean_shift_head import MeanShiftHead
from .multi_linear_head import MultiLinearHead
from .nearest_neighbor_head import NearestNeighborHead
from .neighbor_head import NeighborHead, Neighbors
from .neighbor_keys import NeighborKeys
from .neighbor_queue import NeighborQueue
from .non_blocking_sync_bn import NonBlockingSyncBN
from .relational_head import RelationalHead
from .snclr import SNCLR
from .soft_neighbor_head import SoftNeighborHead

__all__ = [
    "SNCLR",
    "AugmentDataPreprocessor",
    "CrossAttentionNeck",
    "ForeachCosineEMA",
    "MeanShiftHead",
    "MultiLinearHead",
    "NearestNeighborHead",
    "NeighborHead",
    "NeighborKeys",
    "NeighborQueue",
    "Neighbors",
    "NonBlockingSyncBN",
    "RelationalHead",
    "SoftNeighborHead",
    "info_nce",
    "soft_neighbor_loss",
]
