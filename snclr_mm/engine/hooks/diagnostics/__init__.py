from .collapse_hook import CollapseHook
from .diagnostic_hook import DiagnosticHook
from .neighbor_age_hook import NeighborAgeHook
from .neighbor_purity_hook import NeighborPurityHook
from .online_knn_hook import OnlineKNNHook
from .online_linear_probe_hook import OnlineLinearProbeHook
from .positiveness_entropy_hook import PositivenessEntropyHook

__all__ = [
    "CollapseHook",
    "DiagnosticHook",
    "NeighborAgeHook",
    "NeighborPurityHook",
    "OnlineKNNHook",
    "OnlineLinearProbeHook",
    "PositivenessEntropyHook",
]
