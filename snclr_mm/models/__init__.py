from .augment_data_preprocessor import AugmentDataPreprocessor
from .cosine_ema import ForeachCosineEMA
from .cross_attention_neck import CrossAttentionNeck
from .losses import info_nce, soft_neighbor_loss
from .multi_linear_head import MultiLinearHead
from .nearest_neighbor_head import NearestNeighborHead
from .neighbor_head import NeighborHead, Neighbors
from .neighbor_queue import NeighborQueue
from .non_blocking_sync_bn import NonBlockingSyncBN
from .snclr import SNCLR
from .soft_neighbor_head import SoftNeighborHead

__all__ = [
    "SNCLR",
    "AugmentDataPreprocessor",
    "CrossAttentionNeck",
    "ForeachCosineEMA",
    "MultiLinearHead",
    "NearestNeighborHead",
    "NeighborHead",
    "NeighborQueue",
    "Neighbors",
    "NonBlockingSyncBN",
    "SoftNeighborHead",
    "info_nce",
    "soft_neighbor_loss",
]
