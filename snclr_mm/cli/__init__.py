"""What the command-line tools do before and around the Runner."""

from .annotations import check_annotations
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
from .pretrained import check_pretrained, clear_pretrained, set_pretrained

__all__ = [
    "adapt_to_machine",
    "add_common_arguments",
    "build_runner",
    "check_annotations",
    "check_data_roots",
    "check_pretrained",
    "clear_pretrained",
    "find_config",
    "load_checkpoints_safely",
    "load_config",
    "read_config",
    "set_dataloader_defaults",
    "set_pretrained",
]
