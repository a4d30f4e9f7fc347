from .comparison import plot_comparison
from .neighbor_grid import plot_neighbors
from .neighbors import FoundNeighbors, find_neighbors
from .training_curves import plot_training, read_scalars
from .transfer import plot_transfer, read_metrics

__all__ = [
    "FoundNeighbors",
    "find_neighbors",
    "plot_comparison",
    "plot_neighbors",
    "plot_training",
    "plot_transfer",
    "read_metrics",
    "read_scalars",
]
