from .cpu_distributed_data_parallel import CPUDistributedDataParallel
from .launch import (
    adapt_to_machine,
    add_common_arguments,
    build_runner,
    check_data_roots,
    find_config,
    load_checkpoints_safely,
    load_config,
    set_dataloader_defaults,
)
from .neighbor_queue_hook import NeighborQueueHook

__all__ = [
    "CPUDistributedDataParallel",
    "NeighborQueueHook",
    "adapt_to_machine",
    "add_common_arguments",
    "build_runner",
    "check_data_roots",
    "find_config",
    "load_checkpoints_safely",
    "load_config",
    "set_dataloader_defaults",
]
