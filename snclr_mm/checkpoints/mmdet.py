from typing import Any

from mmengine.registry import DefaultScope
from torch import Tensor, nn

from . import mmpretrain
from .architecture import Architecture, ResNetArchitecture, load_exactly
from .format import Format


def load(saved: dict[str, Any], architecture: Architecture) -> nn.Module:
    """MMDetection's ResNet; it has no plain ViT and takes MMPretrain's."""
    from mmdet.models import ResNet

    if not isinstance(architecture, ResNetArchitecture):
        return mmpretrain.load(saved, architecture)
    state = {
        name.removeprefix(mmpretrain.PREFIX): value
        for name, value in saved["state_dict"].items()
    }
    with DefaultScope.overwrite_default_scope("mmdet"):
        return load_exactly(ResNet(architecture.depth), state)


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of MMDetection's own model."""
    return model(image)[-1]


MMDET = Format(None, mmpretrain.write, load, features, mmpretrain.usage)
