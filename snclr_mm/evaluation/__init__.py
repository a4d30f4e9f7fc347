from .features import extract_features, pool_features
from .knn_loop import KNNTestLoop, KNNValLoop
from .weighted_knn import weighted_knn

__all__ = [
    "KNNTestLoop",
    "KNNValLoop",
    "extract_features",
    "pool_features",
    "weighted_knn",
]
