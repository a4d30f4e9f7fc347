from .comparison import plot_comparison
from .feature_map import map_features, write_feature_map
from .html_page import describe_images
from .image_sample import ImageSample
from .neighbor_browser import write_neighbor_browser
from .neighbor_grid import plot_neighbors
from .neighbors import FoundNeighbors, evenly, extract_keys, find_neighbors
from .run_report import write_run_report
from .saliency import similarity_maps
from .training_curves import plot_training, read_scalars
from .transfer import plot_transfer, read_metrics

__all__ = [
    "FoundNeighbors",
    "ImageSample",
    "describe_images",
    "evenly",
    "extract_keys",
    "find_neighbors",
    "map_features",
    "plot_comparison",
    "plot_neighbors",
    "plot_training",
    "plot_transfer",
    "read_metrics",
    "read_scalars",
    "similarity_maps",
    "write_feature_map",
    "write_neighbor_browser",
    "write_run_report",
]
