from .hooks import (
    CollapseHook,
    DiagnosticHook,
    NeighborAgeHook,
    NeighborPurityHook,
    NeighborQueueHook,
    OnlineKNNHook,
    OnlineLinearProbeHook,
    PositivenessEntropyHook,
)
from .optimizers import (
    CPUAmpOptimWrapper,
    ForeachLARS,
    MultiLinearOptimWrapperConstructor,
)
from .parallel import (
    CPUDistributedDataParallel,
    CPUFullyShardedDataParallel,
    ResumableFSDPStrategy,
    fsdp_wrap_policy,
)
from .runners import KNNTestLoop, KNNValLoop

__all__ = [
    "CPUAmpOptimWrapper",
    "CPUDistributedDataParallel",
    "CPUFullyShardedDataParallel",
    "CollapseHook",
    "DiagnosticHook",
    "ForeachLARS",
    "KNNTestLoop",
    "KNNValLoop",
    "MultiLinearOptimWrapperConstructor",
    "NeighborAgeHook",
    "NeighborPurityHook",
    "NeighborQueueHook",
    "OnlineKNNHook",
    "OnlineLinearProbeHook",
    "PositivenessEntropyHook",
    "ResumableFSDPStrategy",
    "fsdp_wrap_policy",
]
