import math
from dataclasses import dataclass

from torch import Tensor, nn

State = dict[str, Tensor]

# ResNet's depth from its blocks per stage and whether they are bottlenecks.
DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}

# Dimensions of what a ViT's sizes are read off.
DIMENSIONS = {
    "cls_token": 3,
    "pos_embed": 3,
    "patch_embed.projection.weight": 4,
    "layers.0.ffn.layers.0.0.weight": 2,
}


@dataclass(frozen=True)
class ResNetArchitecture:
    """A torchvision-type ResNet: 7 x 7 stem, stride in the 3 x 3 convolution.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
    """

    depth: int

    def __str__(self) -> str:
        return f"ResNet-{self.depth}"


@dataclass(frozen=True)
class ViTArchitecture:
    """A plain vision transformer with a class token and learned or fixed positions.

    Args:
        embed_dims (int): Width.
        num_layers (int): Number of blocks.
        num_heads (int): Attention heads; tensors do not tell it.
        feedforward_channels (int): Width of the MLPs.
        patch_size (int): Pixels.
        image_size (int): Pixels; the position embedding's grid times ``patch_size``.
    """

    embed_dims: int
    num_layers: int
    num_heads: int
    feedforward_channels: int
    patch_size: int
    image_size: int

    def __str__(self) -> str:
        return (
            f"ViT of {self.num_layers} layers, width {self.embed_dims}, "
            f"{self.num_heads} heads, patches of {self.patch_size}, images of "
            f"{self.image_size}"
        )


@dataclass(frozen=True)
class ConfiguredArchitecture:
    """Any other backbone of MMPretrain, for MMPretrain alone.

    Args:
        config (dict): As in the checkpoint's config, plain data.
    """

    config: dict

    def __str__(self) -> str:
        return f"{self.config['type']}, as the checkpoint's config describes it"


Architecture = ResNetArchitecture | ViTArchitecture | ConfiguredArchitecture


def infer_architecture(state: State, num_heads: int | None = None) -> Architecture:
    """Read the architecture off a backbone's tensors.

    Args:
        state (dict[str, Tensor]): With MMPretrain's names, without prefix.
        num_heads (int, optional): Of a ViT. Defaults to None: unknown.

    Raises:
        ValueError: If it is neither a plain ResNet nor a plain ViT, or if it is a ViT
            and ``num_heads`` is None or does not divide its width.
    """
    if "pos_embed" in state and "patch_embed.projection.weight" in state:
        return _vit(state, num_heads)
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        return _resnet(state)
    raise ValueError(
        "The weights are neither those of a plain ResNet nor of a plain ViT, which are "
        f"what can be converted; they begin with {', '.join(list(state)[:4])}."
    )


def _resnet(state: State) -> ResNetArchitecture:
    blocks = tuple(
        len({name.split(".")[1] for name in state if name.startswith(f"layer{i}.")})
        for i in range(1, 5)
    )
    depth = DEPTHS.get((blocks, "layer1.0.conv3.weight" in state))
    stem = tuple(state["conv1.weight"].shape)
    if depth is None or stem != (64, 3, 7, 7):
        raise ValueError(
            f"A ResNet of {blocks} blocks and a first convolution of shape {stem} is "
            "not one of ResNet-18, 34, 50, 101 and 152 with the 7 x 7 stem; other "
            "libraries have no such model. --to mmpretrain and --to safetensors take "
            "any backbone, if the checkpoint holds its config."
        )
    return ResNetArchitecture(depth)


def _vit(state: State, num_heads: int | None) -> ViTArchitecture:
    for name, dims in DIMENSIONS.items():
        shape = list(state[name].shape) if name in state else None
        if shape is not None and (len(shape) != dims or 0 in shape):
            raise ValueError(
                f"{name} has the shape {shape}; a plain ViT's has {dims} dimensions, "
                "none of them 0."
            )
    width, _, patch_size, _ = state["patch_embed.projection.weight"].shape
    tokens = state["pos_embed"].shape[1] - 1
    grid = math.isqrt(tokens)
    if "cls_token" not in state or grid**2 != tokens:
        raise ValueError(
            f"A ViT with {tokens + 1} positions is not one class token and a square of "
            "patches; only such can be converted."
        )
    if num_heads is None:
        raise ValueError(
            f"The number of attention heads of this ViT (width {width}) is not in the "
            "checkpoint: give it as --num-heads (MoCo v3's ViT-S and ViT-B have 12)."
        )
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"--num-heads {num_heads} does not divide the width {width}.")
    if "layers.0.ffn.layers.0.0.weight" not in state:
        raise ValueError(
            "This ViT's blocks have no plain MLP; such models cannot be converted."
        )
    layers = {name.split(".")[1] for name in state if name.startswith("layers.")}
    return ViTArchitecture(
        embed_dims=width,
        num_layers=len(layers),
        num_heads=num_heads,
        feedforward_channels=len(state["layers.0.ffn.layers.0.0.weight"]),
        patch_size=patch_size,
        image_size=grid * patch_size,
    )


def load_exactly(model: nn.Module, state: State) -> nn.Module:
    """All weights into a library's own model; in evaluation mode, double precision."""
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = str(error).splitlines()
        more = f"\n\t... and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise ValueError("\n".join(lines[:5]) + more) from None
    if missing or unknown:
        raise ValueError(
            f"The weights do not fit {type(model).__name__}: missing {missing[:5]}, "
            f"unknown {unknown[:5]}."
        )
    model.eval()
    return model.double()
