import re
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from snclr_mm.checkpoints.architecture import Architecture, ResNetArchitecture
from snclr_mm.checkpoints.format import Backbone, Format, tensors_of
from snclr_mm.checkpoints.names import invert, pick

from . import timm_format, torchvision_format

#: Heads by the name that the training script was given; its ViT-S has 12, not 6.
NUM_HEADS = {"vit_small": 12, "vit_base": 12}


def read(checkpoint: dict, branch: str) -> Backbone:
    """Read facebookresearch/moco-v3's and the SNCLR authors' checkpoints.

    Both save DistributedDataParallel's names; the projector sits where the classifier
    would: ``head`` of a ViT, ``fc`` of a ResNet.

    Args:
        checkpoint (dict): With ``state_dict`` and, of a ViT, ``arch``.
        branch (str): 'online' or 'momentum'.

    Raises:
        ValueError: If there is no such branch.
    """
    tensors = tensors_of(checkpoint)
    encoder = "base_encoder" if branch == "online" else "momentum_encoder"
    prefix = f"module.{encoder}."
    backbone = pick(tensors, invert(timm_format.PAIRS), prefix, without=["head", "fc"])
    if not backbone.state:
        raise ValueError(
            f"--from moco-v3 --branch {branch}: the checkpoint has no tensors under "
            f"{prefix!r}; it begins with {', '.join(list(tensors)[:3])}."
        )
    return backbone._replace(num_heads=NUM_HEADS.get(checkpoint.get("arch")))


def load(saved: dict[str, Any], architecture: Architecture) -> nn.Module:
    """The models that its code builds on: timm's ViT, torchvision's ResNet."""
    return _library(architecture).load(_bare(saved), architecture)


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of that model."""
    library = timm_format if hasattr(model, "forward_features") else torchvision_format
    return library.features(model, image)


def _library(architecture: Architecture) -> ModuleType:
    is_resnet = isinstance(architecture, ResNetArchitecture)
    return torchvision_format if is_resnet else timm_format


def _bare(saved: dict[str, Any]) -> dict[str, Any]:
    return {re.sub(r"^\w+_encoder\.", "", k): v for k, v in saved.items()}


MOCO_V3 = Format(read, None, load, features)
