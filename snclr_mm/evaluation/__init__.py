from .collapse import feature_std, positiveness_entropy, rankme
from .embedding import PreparedImages, embed, list_images
from .feature_cache import FeatureCache, hash_weights
from .features import extract_features, pool_features
from .few_label_probes import few_shot_accuracies, semi_supervised_probe
from .linear_probe import sweep_linear_probe
from .multi_linear_accuracy import MultiLinearAccuracy
from .pixels import Pixels, drop_equal_channels
from .retrieval import retrieval_metrics
from .splits import Split, build_splits, comes_by_class, describe_images
from .svm import SHOTS, largest_shot, linear_svm, low_shot_svm
from .weighted_knn import check_knn, knn_grid, weighted_knn

__all__ = [
    "SHOTS",
    "FeatureCache",
    "MultiLinearAccuracy",
    "Pixels",
    "PreparedImages",
    "Split",
    "build_splits",
    "check_knn",
    "comes_by_class",
    "describe_images",
    "drop_equal_channels",
    "embed",
    "extract_features",
    "feature_std",
    "few_shot_accuracies",
    "hash_weights",
    "knn_grid",
    "largest_shot",
    "linear_svm",
    "list_images",
    "low_shot_svm",
    "pool_features",
    "positiveness_entropy",
    "rankme",
    "retrieval_metrics",
    "semi_supervised_probe",
    "sweep_linear_probe",
    "weighted_knn",
]
