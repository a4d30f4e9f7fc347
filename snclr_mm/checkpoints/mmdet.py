from typing import Any

from mmengine.registry import DefaultScope
from torch import nn

from . import mmpretrain
from .architecture import Architecture, ResNetArchitecture, load_exactly
from .format import Format


def load(saved: dict[str, Any], architecture: Architecture) -> nn.Module:
    """MMDetection's ResNet; it has no plain ViT and takes MMPretrain's."""
    from mmdet.models import ResNet

    if not isinstance(architecture, ResNetArchitecture):
        return mmpretrain.load(saved, architecture)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return load_exactly(ResNet(architecture.depth), mmpretrain.bare(saved))


MMDET = Format(None, mmpretrain.write, load, mmpretrain.features, mmpretrain.usage)
