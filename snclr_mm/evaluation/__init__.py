from .features import extract_features, pool_features
from .knn_loop import KNNTestLoop, KNNValLoop
from .linear_probe import few_shot_probe, linear_probe
from .weighted_knn import weighted_knn

__all__ = [
    "KNNTestLoop",
    "KNNValLoop",
    "extract_features",
    "few_shot_probe",
    "linear_probe",
    "pool_features",
    "weighted_knn",
]
