"""Load configs of the repository, and build their parts without data."""

import os
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmpretrain.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)
from torch import nn

from snclr_mm.cli import check_config

from .shrink import shrink_numbers
from .tiny import REPOSITORY

CONFIGS = REPOSITORY / "configs"
#: Configs that serve several choices, by an environment variable.
CHOICES = {
    "small_images/*_small-images.py": (
        "DATASET",
        ["cifar10", "cifar100", "stl10", "tiny-imagenet"],
    ),
    "baselines/*_fashion-mnist.py": (
        "RECIPE",
        [
            "resnet-tiny_1xb128_fashion-mnist",
            "resnet-tiny_1xb128_cifar100",
            "r18_1xb256-200e_cifar100",
        ],
    ),
    "benchmarks/classification/semi_*.py": ("PERCENT", ["1", "10"]),
    "benchmarks/classification/finetune_vit_*.py": (
        "BACKBONE",
        ["vit-small-p16", "vit-base-p16"],
    ),
    "benchmarks/classification/transfer/*.py": (
        "DATASET",
        [
            *("aircraft", "caltech101", "cars", "cifar10", "cifar100", "dtd"),
            *("flowers102", "food101", "pets", "sun397"),
        ],
    ),
    "benchmarks/mmsegmentation/stock_r50.py": (
        "SEGMENTOR",
        [
            "fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512",
            "fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769",
            "upernet/upernet_r50_4xb4-160k_ade20k-512x512",
        ],
    ),
}


def full_schedule(cfg: Config) -> list[dict]:
    """The schedulers of a config that counts epochs, with what MMEngine fills in."""
    schedulers = []
    for given in cfg.param_scheduler:
        full = dict(by_epoch=True, begin=0, end=cfg.train_cfg.max_epochs) | given
        if full["type"] == "CosineAnnealingLR":
            full.setdefault("T_max", full["end"] - full["begin"])
        schedulers.append(full)
    return schedulers


def cases(folder: str = ".") -> list[tuple[str, str]]:
    """Every config below a folder of configs/, with each of its choices.

    Returns:
        list: Pairs for :func:`load`: path in configs/, and ``VARIABLE=value`` or "".
    """
    pairs = []
    for path in sorted((CONFIGS / folder).rglob("*.py")):
        name = path.relative_to(CONFIGS)
        if name.parts[0] == "_base_":
            continue
        choice = next((c for p, c in CHOICES.items() if name.match(p)), None)
        variable, values = choice or ("", [""])
        pairs += [(str(name), f"{variable}={v}" if choice else "") for v in values]
    return pairs


def load(path: str | Path, choice: str = "") -> Config:
    """Load a config.

    Args:
        path (str | Path): In configs/, or absolute.
        choice (str): ``VARIABLE=value`` for the environment. Defaults to "".
    """
    return deepcopy(_load(str(CONFIGS / path), choice))


@cache
def _load(path, choice):
    variable, _, value = choice.partition("=")
    with patch.dict(os.environ, {variable: value} if choice else {}):
        return Config.fromfile(path)


def build_on_meta(model: dict) -> nn.Module:
    """Build a model of any size without its memory."""
    # ResNet's and ViT's drop path reads numbers from it.
    linspace = partial(torch.linspace, device="cpu")
    with patch("torch.linspace", linspace), torch.device("meta"):
        return MODELS.build(model)


def save_backbone(backbone: dict, path: Path) -> Path:
    """Write a checkpoint as of a pretraining with this backbone, of random weights."""
    state = MODELS.build({**backbone, "init_cfg": None}).state_dict()
    for key, value in state.items():  # no batch norm as it is initialized
        if value.is_floating_point():
            value.uniform_(*((0.5, 0.7) if "var" in key else (-0.1, 0.1)))
    state = {f"backbone.{key}": value for key, value in state.items()}
    torch.save({"state_dict": state}, path)
    return path


def check_parts(cfg: Config) -> None:
    """Build what a config names, the model with few channels, but its data.

    A setting that a part does not know is a TypeError.
    """
    check_config(cfg)
    cfg = shrink_numbers(deepcopy(cfg))
    MODELS.build(cfg.model)
    if "type" in cfg.get("data_preprocessor", {}):
        MODELS.build(cfg.data_preprocessor)
    for stage in ("train", "val", "test"):
        loop = cfg.get(f"{stage}_cfg") or {}
        loaders = (cfg.get(f"{stage}_dataloader"), loop.get("bank_dataloader"))
        for loader in filter(None, loaders):
            assert DATASETS.get(loader.dataset.type), loader.dataset.type
            for transform in loader.dataset.pipeline:
                TRANSFORMS.build(transform)
        if "type" in loop:
            assert LOOPS.get(loop.type), loop.type
        evaluator = cfg.get(f"{stage}_evaluator") or []
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            METRICS.build(metric)
    for hook in cfg.get("custom_hooks") or []:
        hook.pop("priority", None)
        HOOKS.build(hook)
    wrapper = cfg.optim_wrapper
    assert OPTIM_WRAPPERS.get(wrapper.get("type", "OptimWrapper"))
    assert OPTIM_WRAPPER_CONSTRUCTORS.get(
        wrapper.get("constructor", "DefaultOptimWrapperConstructor")
    )
    assert OPTIMIZERS.get(wrapper.optimizer.type)
    assert all(PARAM_SCHEDULERS.get(s.type) for s in cfg.param_scheduler)
