from .cpu_distributed_data_parallel import CPUDistributedDataParallel
from .cpu_fully_sharded_data_parallel import CPUFullyShardedDataParallel
from .fsdp_wrap_policy import fsdp_wrap_policy
from .resumable_fsdp_strategy import ResumableFSDPStrategy

__all__ = [
    "CPUDistributedDataParallel",
    "CPUFullyShardedDataParallel",
    "ResumableFSDPStrategy",
    "fsdp_wrap_policy",
]
