from pathlib import Path
from typing import Any

from torch import Tensor, nn

from snclr_mm.checkpoints.architecture import (
    Architecture,
    ResNetArchitecture,
    ViTArchitecture,
)
from snclr_mm.checkpoints.names import as_arguments, classifier_format

LAYER = "encoder.layers.encoder_layer_{}"
PAIRS = [
    ("cls_token", "class_token"),
    ("pos_embed", "encoder.pos_embedding"),
    ("patch_embed.projection", "conv_proj"),
    ("layers.{}.ln1", f"{LAYER}.ln_1"),
    ("layers.{}.attn.qkv.weight", f"{LAYER}.self_attention.in_proj_weight"),
    ("layers.{}.attn.qkv.bias", f"{LAYER}.self_attention.in_proj_bias"),
    ("layers.{}.attn.proj", f"{LAYER}.self_attention.out_proj"),
    ("layers.{}.ln2", f"{LAYER}.ln_2"),
    ("layers.{}.ffn.layers.0.0", f"{LAYER}.mlp.0"),
    ("layers.{}.ffn.layers.1", f"{LAYER}.mlp.3"),
    ("ln1", "encoder.ln"),
]
NUM_HEADS = {768: 12, 1024: 16, 1280: 16}  # by width, of all its ViTs
CLASSIFIER = ("fc", "heads")


def build(architecture: Architecture) -> nn.Module:
    """torchvision's resnet* or VisionTransformer, without the classifier."""
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    if isinstance(architecture, ResNetArchitecture):
        model = getattr(models, f"resnet{architecture.depth}")(weights=None)
        return create_feature_extractor(model, {"layer4": "last"})
    model = models.VisionTransformer(**_settings(architecture))
    return create_feature_extractor(model, {"encoder.ln": "last"})


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of torchvision's own model."""
    return model(image)["last"]


def usage(path: Path, architecture: Architecture) -> str:
    """The classifier stays as it is, so loading is not strict."""
    if isinstance(architecture, ResNetArchitecture):
        model = f"resnet{architecture.depth}()"
    else:
        model = f"VisionTransformer({as_arguments(_settings(architecture))})"
    if path.suffix == ".safetensors":
        state = f'safetensors.torch.load_file("{path}")'
    else:
        state = f'torch.load("{path}", weights_only=True)'
    return (
        f"model = torchvision.models.{model}; "
        f"model.load_state_dict({state}, strict=False)"
    )


def _settings(architecture: ViTArchitecture) -> dict[str, Any]:
    return dict(
        image_size=architecture.image_size,
        patch_size=architecture.patch_size,
        num_layers=architecture.num_layers,
        num_heads=architecture.num_heads,
        hidden_dim=architecture.embed_dims,
        mlp_dim=architecture.feedforward_channels,
    )


TORCHVISION = classifier_format(PAIRS, CLASSIFIER, NUM_HEADS, build, features, usage)
