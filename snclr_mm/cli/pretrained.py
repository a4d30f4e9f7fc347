from collections.abc import Iterator
from typing import Any

from mmengine.config import ConfigDict
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS
from mmpretrain.utils import get_ori_model
from torch import nn

from snclr_mm.engine.hooks.checkpoint_check_hook import (
    find_misfits,
    summarize_misfits,
)

#: What a pretraining checkpoint cannot have, by class.
NEW_PARTS = {"ResLayerExtraNorm": ("norm",)}


def set_pretrained(cfg: ConfigDict, checkpoint: str) -> list[str]:
    """Start every pretrained part of a model from one checkpoint.

    Args:
        cfg (ConfigDict): Of the model; changed in place. Filled are all
            ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)``: the
            backbone's, and in a C4 detector the last stage's.
        checkpoint (str): File or URL.

    Returns:
        list[str]: Config keys that were set.

    Raises:
        ValueError: If there is none.
    """
    keys = []
    for owner, name, key in _pretrained_inits(cfg, "model"):
        owner[name]["checkpoint"] = checkpoint
        keys.append(f"{key}.checkpoint")
    if not keys:
        raise ValueError(
            f"--pretrained {checkpoint}: no part of the config's model has an init_cfg="
            'dict(type="Pretrained", checkpoint="", prefix="backbone.") to fill.'
        )
    return keys


def clear_pretrained(cfg: ConfigDict) -> None:
    """Start every part that :func:`set_pretrained` would fill from random weights."""
    for owner, name, _ in reversed(list(_pretrained_inits(cfg, "model"))):
        if isinstance(owner, dict):
            owner[name] = None
        else:
            del owner[name]


def _pretrained_inits(node: Any, key: str) -> Iterator[tuple[Any, str | int, str]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        if not isinstance(value, (dict, list, tuple)):
            continue
        inner = f"{key}.{name}"
        if isinstance(value, dict) and value.get("type") == "Pretrained":
            if value.get("prefix"):
                yield node, name, inner
        else:
            yield from _pretrained_inits(value, inner)


def check_pretrained(model: nn.Module | ConfigDict) -> None:
    """Check that each pretrained part of a model gets all its weights.

    MMEngine only warns of keys that do not match, so a wrong prefix or a checkpoint of
    another architecture would start from random weights. Here it is an error. The
    weights are loaded on the way. The module may lack whole parts of the checkpoint's,
    as a C4 detector's backbone the last stage, and have those in ``NEW_PARTS``.

    Args:
        model (nn.Module | ConfigDict): Possibly wrapped; FlexibleRunner has its config
            until training starts. The modules looked at are those whose ``init_cfg`` is
            Pretrained with a prefix: a benchmark's backbone.

    Raises:
        ValueError: If no checkpoint is given, or if its tensors under the prefix are
            not, in name and shape, the module's.
        FileNotFoundError: If there is no such file.
    """
    if isinstance(model, dict):
        if not any(_pretrained_inits(model, "model")):
            return
        model = MODELS.build(model)
    for name, module in get_ori_model(model).named_modules():
        init_cfg = getattr(module, "init_cfg", None) or []
        for cfg in [init_cfg] if isinstance(init_cfg, dict) else init_cfg:
            if cfg["type"] == "Pretrained" and cfg.get("prefix"):
                _check(f"model.{name}", module, cfg["checkpoint"], cfg["prefix"])


def _check(name: str, module: nn.Module, checkpoint: str, prefix: str) -> None:
    if not checkpoint:
        raise ValueError(
            f"{name} starts from a pretraining checkpoint, but none is given: pass "
            f"--pretrained FILE, or set {name}.init_cfg.checkpoint."
        )
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
    loaded = loaded.get("state_dict", loaded)
    prefix = prefix.rstrip(".") + "."  # as MMEngine reads it
    state = {
        key.removeprefix(prefix): value
        for key, value in loaded.items()
        if key.startswith(prefix)
    }
    problems = find_misfits(module, state)
    new = NEW_PARTS.get(type(module).__name__, ())
    known = {_part(key) for key in module.state_dict()}
    for problem, parts in (
        ("not in the checkpoint", known - {*new}),
        ("not in the model", known),
    ):
        problems[problem] = [key for key in problems[problem] if _part(key) in parts]
    text = summarize_misfits(problems)
    if text:
        parts = sorted({_part(key) for key in loaded})
        raise ValueError(
            f"{name}, a {type(module).__name__} of {len(module.state_dict())} tensors, "
            f"does not match the {len(state)} tensors under {prefix!r} in {checkpoint}:"
            f" {text}. "
            f"Either {name}.init_cfg.prefix is wrong (the checkpoint has "
            f"{', '.join(parts)}), or {name} is not built as it was for pretraining."
        )


def _part(key: str) -> str:
    return key.partition(".")[0]
