from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from snclr_mm.checkpoints.architecture import (
    Architecture,
    ResNetArchitecture,
    State,
    ViTArchitecture,
    load_exactly,
)
from snclr_mm.checkpoints.format import Format
from snclr_mm.checkpoints.names import as_arguments, translate

from . import mmpretrain_format

PAIRS = [
    ("layers.{}.attn.qkv.weight", "layers.{}.attn.attn.in_proj_weight"),
    ("layers.{}.attn.qkv.bias", "layers.{}.attn.attn.in_proj_bias"),
    ("layers.{}.attn.proj", "layers.{}.attn.attn.out_proj"),
]


def write(state: State, architecture: Architecture) -> dict[str, Any]:
    """A ResNet as a segmentor's part.

    MMSegmentation's ViT names its attention otherwise, and reads names without prefix.
    """
    if isinstance(architecture, ResNetArchitecture):
        return mmpretrain_format.write(state, architecture)
    return {"state_dict": translate(state, PAIRS)}


def load(saved: dict[str, Any], architecture: Architecture) -> nn.Module:
    """MMSegmentation's ResNet or VisionTransformer."""
    from mmseg.models.backbones import ResNet, VisionTransformer

    with DefaultScope.overwrite_default_scope("mmseg"):
        if isinstance(architecture, ResNetArchitecture):
            # Its default dilates the last stages, which changes no weight.
            model = ResNet(architecture.depth, strides=(1, 2, 2, 2), dilations=(1,) * 4)
        else:
            settings = _settings(architecture)
            model = VisionTransformer(**settings, output_cls_token=True)
        return load_exactly(model, mmpretrain_format.bare(saved))


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of MMSegmentation's own model."""
    last = model(image)[-1]
    if isinstance(last, Tensor):
        return last
    grid, token = last
    return torch.cat([token[:, None], grid.flatten(2).transpose(1, 2)], dim=1)


def usage(path: Path, architecture: Architecture) -> str:
    """A ViT with the settings that its defaults would change."""
    if isinstance(architecture, ResNetArchitecture):
        return mmpretrain_format.usage(path, architecture)
    settings = as_arguments(_settings(architecture))
    init_cfg = f'dict(type="Pretrained", checkpoint="{path}")'
    return f'dict(type="VisionTransformer", {settings}, init_cfg={init_cfg})'


def _settings(architecture: ViTArchitecture) -> dict[str, Any]:
    return dict(
        img_size=architecture.image_size,
        patch_size=architecture.patch_size,
        embed_dims=architecture.embed_dims,
        num_layers=architecture.num_layers,
        num_heads=architecture.num_heads,
        mlp_ratio=architecture.feedforward_channels // architecture.embed_dims,
        patch_bias=True,
        norm_cfg=dict(type="LN", eps=1e-6),
        final_norm=True,
    )


MMSEG = Format(None, write, load, features, usage)
