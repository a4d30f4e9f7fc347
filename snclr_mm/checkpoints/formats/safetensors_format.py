from pathlib import Path
from typing import Any

from torch import nn

from snclr_mm.checkpoints.architecture import Architecture, State
from snclr_mm.checkpoints.format import Format

from . import mmpretrain_format


def write(state: State, architecture: Architecture) -> dict[str, Any]:
    """MMPretrain's names without prefix, as a flat dict."""
    return dict(state)


def load(saved: dict[str, Any], architecture: Architecture) -> nn.Module:
    """MMPretrain's model."""
    return mmpretrain_format.load(
        mmpretrain_format.write(saved, architecture), architecture
    )


def usage(path: Path, architecture: Architecture) -> str:
    """Into MMPretrain's model."""
    return f'backbone.load_state_dict(safetensors.torch.load_file("{path}"))'


SAFETENSORS = Format(None, write, load, mmpretrain_format.features, usage)
