import ast
from pathlib import Path
from typing import Any

from mmengine.registry import init_default_scope
from mmpretrain.models import MoCoV3ViT, VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .architecture import Architecture, State, load_exactly
from .format import Backbone, Format, tensors_of
from .names import pick

#: Where SNCLR, MoCoV3 and BYOL keep the momentum encoder's backbone.
MOMENTUM = ("momentum_encoder.module.0.", "target_net.module.0.")
PREFIX = "backbone."


def read(checkpoint: dict, branch: str) -> Backbone:
    """Read what MMEngine saved: this project's, MMPretrain's or MMSelfSup's models.

    Args:
        checkpoint (dict): With or without ``state_dict`` and ``meta``.
        branch (str): 'online' or 'momentum'.

    Raises:
        ValueError: If there is no such branch.
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
    backbone = pick(tensors, prefix=prefix)
    return backbone._replace(num_heads=_num_heads(checkpoint.get("meta") or {}))


def write(state: State, architecture: Architecture) -> dict[str, Any]:
    """As a model's part, so that it loads like a pretraining checkpoint."""
    return {"state_dict": {PREFIX + name: value for name, value in state.items()}}


def load(saved: dict[str, Any], architecture: Architecture) -> nn.Module:
    """MMPretrain's ResNet or VisionTransformer."""
    state = {
        name.removeprefix(PREFIX): value for name, value in saved["state_dict"].items()
    }
    init_default_scope("mmpretrain")
    config = architecture.config
    if config["type"] == "VisionTransformer":
        config["out_type"] = "raw"
    return load_exactly(MODELS.build(config), state)


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of MMPretrain's own model."""
    return model(image)[-1]


def usage(path: Path, architecture: Architecture) -> str:
    """As the init_cfg of the backbone."""
    return f'init_cfg=dict(type="Pretrained", checkpoint="{path}", prefix="{PREFIX}")'


def _num_heads(meta: dict) -> int | None:
    """The ViT's heads by the config in the checkpoint, which is read, never run."""
    try:
        nodes = ast.parse(meta.get("cfg") or "").body
    except SyntaxError:
        return None
    for node in nodes:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "model":
            arch = (_literal(node.value) or {}).get("backbone", {}).get("arch")
            if isinstance(arch, dict):
                return arch.get("num_heads")
            MoCoV3ViT(arch="mocov3-small", patch_size=16)  # it adds its own to the zoo
            zoo = VisionTransformer.arch_zoo
            return zoo[arch]["num_heads"] if arch in zoo else None
    return None


def _literal(node: ast.AST) -> Any:
    """The value of nested dict(...), lists and constants; None for anything else."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict":
        return {item.arg: _literal(item.value) for item in node.keywords}
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


MMPRETRAIN = Format(read, write, load, features, usage)
