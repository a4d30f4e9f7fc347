"""What the command-line tools do before and around the Runner."""

from snclr_mm.checkpoint_safety import explain_refusal, load_checkpoints_safely

from .annotations import check_annotations
from .configs import add_common_arguments, find_config, load_config, read_config
from .dataloaders import check_data_roots, set_dataloader_defaults
from .machine import adapt_to_machine, build_runner, prepare_torch
from .pretrained import check_pretrained, clear_pretrained, set_pretrained

__all__ = [
    "adapt_to_machine",
    "add_common_arguments",
    "build_runner",
    "check_annotations",
    "check_data_roots",
    "check_pretrained",
    "clear_pretrained",
    "explain_refusal",
    "find_config",
    "load_checkpoints_safely",
    "load_config",
    "prepare_torch",
    "read_config",
    "set_dataloader_defaults",
    "set_pretrained",
]
