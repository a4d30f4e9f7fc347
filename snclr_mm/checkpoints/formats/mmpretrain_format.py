from pathlib import Path
from typing import Any

from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmpretrain.models import MoCoV3ViT, ResNet, VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from snclr_mm.checkpoints.architecture import (
    Architecture,
    ConfiguredArchitecture,
    ResNetArchitecture,
    State,
)
from snclr_mm.checkpoints.config_text import literal, read_assignments
from snclr_mm.checkpoints.format import Backbone, Format, tensors_of
from snclr_mm.checkpoints.names import pick
from snclr_mm.checkpoints.saved_model import check_types

#: Where SNCLR and MoCoV3, BYOL, and MoCo keep the momentum encoder's backbone.
MOMENTUM = (
    "momentum_encoder.module.0.",
    "target_net.module.0.",
    "encoder_k.module.0.",
)
PREFIX = "backbone."


def read(checkpoint: dict, branch: str) -> Backbone:
    """Read what MMEngine saved: this project's, MMPretrain's or MMSelfSup's models.

    A config in ``meta`` tells the heads, and what cannot be converted.
    """
    tensors = tensors_of(checkpoint)
    prefixes = [PREFIX] if branch == "online" else list(MOMENTUM)
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in tensors):
            break
    else:
        # MMSelfSup's extract_backbone_weights.py leaves no prefix.
        prefix = ""
        bare = "conv1.weight" in tensors or "pos_embed" in tensors
        if branch == "momentum" or not bare:
            parts = sorted({name.partition(".")[0] for name in tensors})
            raise ValueError(
                f"--branch {branch}: the checkpoint has no tensors under "
                f"{' or '.join(prefixes)}, only under {', '.join(parts[:10])}."
            )
    config = _backbone_config(checkpoint.get("meta") or {})
    backbone = pick(tensors, prefix=prefix)
    return backbone._replace(num_heads=_num_heads(config), config=config)


def write(state: State, architecture: Architecture) -> dict[str, Any]:
    """As a model's part, so that it loads like a pretraining checkpoint."""
    return {"state_dict": {PREFIX + name: value for name, value in state.items()}}


def build(architecture: Architecture) -> nn.Module:
    """MMPretrain's ResNet or VisionTransformer, or what a config describes."""
    if isinstance(architecture, ConfiguredArchitecture):
        config = dict(architecture.config, init_cfg=None)
        check_types(config)
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            return revert_sync_batchnorm(MODELS.build(config))
    if isinstance(architecture, ResNetArchitecture):
        return ResNet(architecture.depth)
    settings = vars(architecture).copy()
    patch_size, img_size = settings.pop("patch_size"), settings.pop("image_size")
    return VisionTransformer(settings, img_size, patch_size, out_type="raw")


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of MMPretrain's own model."""
    return model(image)[-1]


def usage(path: Path, architecture: Architecture) -> str:
    """As the init_cfg of the backbone."""
    return f'init_cfg=dict(type="Pretrained", checkpoint="{path}", prefix="{PREFIX}")'


def _backbone_config(meta: dict) -> dict:
    """The backbone's config in the checkpoint, which is read, never run."""
    try:
        values = read_assignments(meta.get("config_text") or meta.get("cfg") or "")
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return {}
    model = literal(values["model"], lambda node: None) if "model" in values else {}
    backbone = model.get("backbone") if isinstance(model, dict) else None
    return backbone if isinstance(backbone, dict) else {}


def check_computation(config: dict) -> None:
    """Refuse what tensors do not show and other libraries' models compute otherwise."""
    for name, usual in (
        ("strides", [1, 2, 2, 2]),
        ("dilations", [1, 1, 1, 1]),
        ("conv_cfg", None),
        ("layer_cfgs", {}),
        ("patch_cfg", {}),
    ):
        given = config.get(name, usual)
        given = list(given) if isinstance(given, tuple) else given
        plain = given in ({"type": "Conv2d"}, {"type": "Conv"})
        if given and given != usual and any(given) and not plain:
            raise ValueError(
                f"The backbone was trained with {name}={given}, which other libraries' "
                "models do not have."
            )
    style = config.get("style", "pytorch")
    if style != "pytorch":
        raise ValueError(
            f"The backbone was trained with style={style!r}, stride in the 1 x 1 "
            "convolution; only style='pytorch' can be converted."
        )
    norm = config.get("norm_cfg")
    usual = 1e-5 if "depth" in config else 1e-6
    # What torch takes where a config names a norm and no eps.
    eps = norm.get("eps", 1e-5) if isinstance(norm, dict) else usual
    if eps != usual:
        raise ValueError(
            f"The backbone was trained with norm_cfg.eps={eps}, which other libraries' "
            "models do not have."
        )


def _num_heads(config: dict) -> int | None:
    arch = config.get("arch")
    if isinstance(arch, dict):
        return arch.get("num_heads")
    MoCoV3ViT(arch="mocov3-small", patch_size=16)  # it adds its own to the zoo
    zoo = VisionTransformer.arch_zoo
    return zoo[arch]["num_heads"] if isinstance(arch, str) and arch in zoo else None


MMPRETRAIN = Format(read, write, build, features, usage)
#: MMPretrain's names without prefix, as a flat dict, for MMPretrain's model.
SAFETENSORS = MMPRETRAIN._replace(
    read=None,
    write=lambda state, architecture: dict(state),
    usage=lambda path, architecture: (
        f'backbone.load_state_dict(safetensors.torch.load_file("{path}"))'
    ),
)
