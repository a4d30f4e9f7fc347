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
)
from snclr_mm.checkpoints.format import Format
from snclr_mm.checkpoints.names import as_arguments, translate

from .mmpretrain_format import MMPRETRAIN

MMSEG_PAIRS = [
    ("layers.{}.attn.qkv.weight", "layers.{}.attn.attn.in_proj_weight"),
    ("layers.{}.attn.qkv.bias", "layers.{}.attn.attn.in_proj_bias"),
    ("layers.{}.attn.proj", "layers.{}.attn.attn.out_proj"),
]


def build_mmdet(architecture: Architecture) -> nn.Module:
    """MMDetection's ResNet; it has no plain ViT and takes MMPretrain's."""
    from mmdet.models import ResNet

    if not isinstance(architecture, ResNetArchitecture):
        return MMPRETRAIN.build(architecture)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return ResNet(architecture.depth)


def write_mmseg(state: State, architecture: Architecture) -> dict[str, Any]:
    """A ResNet as a segmentor's part.

    MMSegmentation's ViT names its attention otherwise, and reads names without prefix.
    """
    if isinstance(architecture, ResNetArchitecture):
        return MMPRETRAIN.write(state, architecture)
    return {"state_dict": translate(state, MMSEG_PAIRS)}


def build_mmseg(architecture: Architecture) -> nn.Module:
    """MMSegmentation's ResNet or VisionTransformer."""
    from mmseg.models.backbones import ResNet, VisionTransformer

    with DefaultScope.overwrite_default_scope("mmseg"):
        if isinstance(architecture, ResNetArchitecture):
            # Its default dilates the last stages, which changes no weight.
            return ResNet(architecture.depth, strides=(1, 2, 2, 2), dilations=(1,) * 4)
        return VisionTransformer(**_mmseg_vit(architecture), output_cls_token=True)


def features_mmseg(model: nn.Module, image: Tensor) -> Tensor:
    """Of MMSegmentation's own model."""
    last = model(image)[-1]
    if isinstance(last, Tensor):
        return last
    grid, token = last
    return torch.cat([token[:, None], grid.flatten(2).transpose(1, 2)], dim=1)


def usage_mmseg(path: Path, architecture: Architecture) -> str:
    """A ViT with the settings that its defaults would change."""
    if isinstance(architecture, ResNetArchitecture):
        return MMPRETRAIN.usage(path, architecture)
    settings = as_arguments(_mmseg_vit(architecture))
    init_cfg = f'dict(type="Pretrained", checkpoint="{path}")'
    return f'dict(type="VisionTransformer", {settings}, init_cfg={init_cfg})'


def _mmseg_vit(architecture: ViTArchitecture) -> dict[str, Any]:
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


MMDET = MMPRETRAIN._replace(read=None, build=build_mmdet)
MMSEG = Format(None, write_mmseg, build_mmseg, features_mmseg, usage_mmseg)
