from .annotations import check_annotations
from .collapse_hook import CollapseHook
from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper
from .cpu_distributed_data_parallel import CPUDistributedDataParallel
from .cpu_fully_sharded_data_parallel import CPUFullyShardedDataParallel
from .diagnostic_hook import DiagnosticHook
from .foreach_lars import ForeachLARS
from .fsdp_wrap_policy import fsdp_wrap_policy
from .launch import (
    adapt_to_machine,
    add_common_arguments,
    build_runner,
    check_data_roots,
    find_config,
    load_checkpoints_safely,
    load_config,
    read_config,
    set_dataloader_defaults,
)
from .multi_linear_constructor import MultiLinearOptimWrapperConstructor
from .neighbor_age_hook import NeighborAgeHook
from .neighbor_purity_hook import NeighborPurityHook
from .neighbor_queue_hook import NeighborQueueHook
from .online_knn_hook import OnlineKNNHook
from .online_linear_probe_hook import OnlineLinearProbeHook
from .positiveness_entropy_hook import PositivenessEntropyHook
from .pretrained import check_pretrained, clear_pretrained, set_pretrained
from .resumable_fsdp_strategy import ResumableFSDPStrategy

__all__ = [
    "CPUAmpOptimWrapper",
    "CPUDistributedDataParallel",
    "CPUFullyShardedDataParallel",
    "CollapseHook",
    "DiagnosticHook",
    "ForeachLARS",
    "MultiLinearOptimWrapperConstructor",
    "NeighborAgeHook",
    "NeighborPurityHook",
    "NeighborQueueHook",
    "OnlineKNNHook",
    "OnlineLinearProbeHook",
    "PositivenessEntropyHook",
    "ResumableFSDPStrategy",
    "adapt_to_machine",
    "add_common_arguments",
    "build_runner",
    "check_annotations",
    "check_data_roots",
    "check_pretrained",
    "clear_pretrained",
    "find_config",
    "fsdp_wrap_policy",
    "load_checkpoints_safely",
    "load_config",
    "read_config",
    "set_dataloader_defaults",
    "set_pretrained",
]
