from .diagnostics import (
    CollapseHook,
    DiagnosticHook,
    NeighborAgeHook,
    NeighborPurityHook,
    OnlineKNNHook,
    OnlineLinearProbeHook,
    PositivenessEntropyHook,
)
from .neighbor_queue_hook import NeighborQueueHook

__all__ = [
    "CollapseHook",
    "DiagnosticHook",
    "NeighborAgeHook",
    "NeighborPurityHook",
    "NeighborQueueHook",
    "OnlineKNNHook",
    "OnlineLinearProbeHook",
    "PositivenessEntropyHook",
]
