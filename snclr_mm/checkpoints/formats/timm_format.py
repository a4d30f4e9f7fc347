from pathlib import Path
from typing import Any

from torch import Tensor, nn

from snclr_mm.checkpoints.architecture import (
    Architecture,
    ResNetArchitecture,
    ViTArchitecture,
)
from snclr_mm.checkpoints.names import as_arguments, classifier_format
from snclr_mm.compat import TORCHVISION_NEEDS_US

PAIRS = [
    ("patch_embed.projection", "patch_embed.proj"),
    ("layers.{}.ln1", "blocks.{}.norm1"),
    ("layers.{}.attn", "blocks.{}.attn"),
    ("layers.{}.ln2", "blocks.{}.norm2"),
    ("layers.{}.ffn.layers.0.0", "blocks.{}.mlp.fc1"),
    ("layers.{}.ffn.layers.1", "blocks.{}.mlp.fc2"),
    ("ln1", "norm"),
]
CLASSIFIER = ("fc", "head")
#: Heads by width, where there is no doubt: of width 384 timm's ViT has 6 and MoCo v3's
#: 12, so there the user must say.
NUM_HEADS = {192: 3, 768: 12, 1024: 16, 1280: 16, 1408: 16}


def build(architecture: Architecture) -> nn.Module:
    """timm's resnet* or VisionTransformer, without the classifier."""
    import timm

    if isinstance(architecture, ResNetArchitecture):
        return timm.create_model(f"resnet{architecture.depth}", num_classes=0)
    return timm.models.VisionTransformer(**_settings(architecture))


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of timm's own model."""
    return model.forward_features(image)


def usage(path: Path, architecture: Architecture) -> str:
    """timm has no name for MoCo v3's ViT-S, so a ViT is given by its settings."""
    if isinstance(architecture, ResNetArchitecture):
        model = f'create_model("resnet{architecture.depth}", num_classes=0)'
    else:
        model = f"models.VisionTransformer({as_arguments(_settings(architecture))})"
    first = "snclr_mm, " if TORCHVISION_NEEDS_US else ""
    load = f'timm.models.load_checkpoint(model, "{path}")'
    return f"import {first}timm; model = timm.{model}; {load}"


def _settings(architecture: ViTArchitecture) -> dict[str, Any]:
    width, hidden = architecture.embed_dims, architecture.feedforward_channels
    ratio = hidden / width
    if int(width * ratio) != hidden:  # as timm computes it
        ratio = (hidden + 0.5) / width
    return dict(
        img_size=architecture.image_size,
        patch_size=architecture.patch_size,
        embed_dim=width,
        depth=architecture.num_layers,
        num_heads=architecture.num_heads,
        mlp_ratio=ratio,
        num_classes=0,
    )


TIMM = classifier_format(PAIRS, CLASSIFIER, NUM_HEADS, build, features, usage)
