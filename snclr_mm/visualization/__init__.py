from .comparison import plot_comparison
from .neighbor_grid import plot_neighbors
from .training_curves import plot_training, read_scalars

__all__ = ["plot_comparison", "plot_neighbors", "plot_training", "read_scalars"]
