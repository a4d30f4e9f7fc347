from typing import Any

from mmengine.registry import DefaultScope
from torch import nn

from snclr_mm.checkpoints.architecture import (
    Architecture,
    ResNetArchitecture,
    load_exactly,
)
from snclr_mm.checkpoints.format import Format

from . import mmpretrain_format


def load(saved: dict[str, Any], architecture: Architecture) -> nn.Module:
    """MMDetection's ResNet; it has no plain ViT and takes MMPretrain's."""
    from mmdet.models import ResNet

    if not isinstance(architecture, ResNetArchitecture):
        return mmpretrain_format.load(saved, architecture)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return load_exactly(ResNet(architecture.depth), mmpretrain_format.bare(saved))


MMDET = Format(
    None,
    mmpretrain_format.write,
    load,
    mmpretrain_format.features,
    mmpretrain_format.usage,
)
