"""The model of a checkpoint."""

import ast
from typing import Any

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS
from torch import nn

from snclr_mm.checkpoint_safety import read_checkpoint
from snclr_mm.cli import read_config
from snclr_mm.datasets import find_test_pipeline
from snclr_mm.engine.hooks.checkpoint_check_hook import find_misfits, summarize_misfits

from .config_text import literal, read_assignments

#: Parts of a config that say what a model is, and how images are prepared for it.
PARTS = ("model", "data_preprocessor", "train_dataloader", "val_dataloader")
PARTS += ("test_dataloader",)

#: Keys that say how training starts, or where MMEngine looks a type up.
UNUSED = ("init_cfg", "pretrained", "_scope_")


def load_model(
    checkpoint: str, config: str | None = None, trust: bool = False
) -> tuple[nn.Module, Config]:
    """Build the model of a checkpoint, with its weights, in eval mode.

    Args:
        checkpoint (str): A file of tools/train.py, or its URL; or a backbone alone, of
            ``convert_checkpoint --to mmpretrain`` or ``safetensors``: then all other
            parts of the model are None.
        config (str, optional): The config's file. Defaults to None, which takes the
            config's text in the checkpoint: it is read as data and not executed, and
            may name registered components only.
        trust (bool): As for :func:`read_checkpoint`. Defaults to False.

    Returns:
        tuple[nn.Module, Config]: The model, on the CPU, and its config.

    Raises:
        ValueError: If the checkpoint holds no config that can be read as data, or its
            tensors do not fit the model.
        UnpicklingError: If it holds more than tensors and plain data.
    """
    saved = read_checkpoint(checkpoint, trust)
    cfg = read_config(config) if config else _saved_config(saved, str(checkpoint))
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor") or {})
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    state, part = saved.get("state_dict", saved), model
    if all(name.startswith("backbone.") for name in state):
        state = {name.removeprefix("backbone."): x for name, x in state.items()}
        part = model.backbone
        for name, _ in list(model.named_children()):
            if name not in ("backbone", "data_preprocessor"):
                setattr(model, name, None)  # its weights would be random
    misfits = summarize_misfits(find_misfits(part, state))
    if misfits:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of {config or 'the config in it'}: "
            f"{misfits}."
        )
    return model.eval(), cfg


def _saved_config(saved: dict, path: str) -> Config:
    meta = saved.get("meta") or {}
    text = meta.get("config_text") or meta.get("cfg")
    try:
        values = read_assignments(text)
        parts = {key: literal(values[key], _refuse) for key in PARTS if key in values}
        cfg = Config(_without_unused(parts))
        check_types([cfg.model, cfg.get("data_preprocessor")])
        check_types(find_test_pipeline(cfg))
        return cfg
    except (TypeError, ValueError, KeyError, SyntaxError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no config that can be read as data ({error}): give the file "
            "of its config as well."
        ) from None


def _refuse(node: ast.expr) -> None:
    raise ValueError(f"line {node.lineno} is not plain data")


def _without_unused(node: Any) -> Any:
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if key not in UNUSED}
        return {key: _without_unused(value) for key, value in kept.items()}
    if isinstance(node, list | tuple):
        return type(node)(map(_without_unused, node))
    return node


def check_types(node: Any) -> None:
    """Raise ValueError unless each type is registered: MMEngine would import others."""
    if isinstance(node, dict):
        known = (MODELS, MODELS.parent, TRANSFORMS, TRANSFORMS.parent)
        for key, value in node.items():
            if key == "type" and not any(value in r.module_dict for r in known):
                raise ValueError(f"type={value!r} is not a registered component")
            check_types(value)
    for value in node if isinstance(node, list | tuple) else ():
        check_types(value)
