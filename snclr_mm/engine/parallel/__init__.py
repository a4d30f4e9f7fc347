from .cpu_wrappers import CPUDistributedDataParallel, CPUFullyShardedDataParallel
from .fsdp_wrap_policy import fsdp_wrap_policy
from .resumable_fsdp_strategy import ResumableFSDPStrategy

__all__ = [
    "CPUDistributedDataParallel",
    "CPUFullyShardedDataParallel",
    "ResumableFSDPStrategy",
    "fsdp_wrap_policy",
]
