"""What the command-line tools do before and around the Runner."""

from snclr_mm.checkpoint_safety import explain_refusal, load_checkpoints_safely

from .annotations import check_annotations
from .config_checks import check_config, merge_options
from .configs import find_config, load_config, read_config
from .console import announce, explain_sizes, quiet_start
from .dataloaders import check_data_roots, dataloaders, set_dataloader_defaults
from .image_folders import fit_to_images, set_image_folders
from .machine import adapt_to_machine, build_runner, prepare_torch
from .pretrained import check_pretrained, clear_pretrained, set_pretrained

__all__ = [
    "adapt_to_machine",
    "announce",
    "build_runner",
    "check_annotations",
    "check_config",
    "check_data_roots",
    "check_pretrained",
    "clear_pretrained",
    "dataloaders",
    "explain_refusal",
    "explain_sizes",
    "find_config",
    "fit_to_images",
    "load_checkpoints_safely",
    "load_config",
    "merge_options",
    "prepare_torch",
    "quiet_start",
    "read_config",
    "set_dataloader_defaults",
    "set_image_folders",
    "set_pretrained",
]
