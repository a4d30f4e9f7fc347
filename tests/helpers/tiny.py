"""The Fashion-MNIST config of the repository, shrunk by overrides only."""

from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from snclr_mm.cli import (
    adapt_to_machine,
    load_checkpoints_safely,
    prepare_torch,
    set_dataloader_defaults,
)
from snclr_mm.cli.schedules import fit_schedule

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs/snclr_resnet-tiny_1xb128_fashion-mnist.py"

#: A pipeline without chance, so that runs can be compared.
FIXED_VIEWS = [
    dict(type="LoadImage"),
    dict(
        type="MultiView",
        num_views=[1, 1],
        transforms=[[], [dict(type="RandomFlip", prob=1.0)]],
    ),
    dict(type="PackInputs"),
]

TINY_BACKBONE = {
    "model.backbone.num_stages": 1,
    "model.backbone.stem_channels": 8,
    "model.backbone.base_channels": 8,
    "model.backbone.strides": (2,),
    "model.backbone.dilations": (1,),
    "model.backbone.out_indices": (0,),
    "model.neck.in_channels": 8,
}
TINY_PRETRAINING = {
    "model.neck.hid_channels": 16,
    "model.neck.out_channels": 8,
    "model.head.predictor.in_channels": 8,
    "model.head.predictor.hid_channels": 16,
    "model.head.predictor.out_channels": 8,
    "model.head.queue.dim": 8,
    "model.head.queue.length": 80,
    "model.head.attention.in_channels": 8,
    "model.head.num_neighbors": 4,
}


def tiny_config(data_root, work_dir, **overrides):
    """A config that trains 4 iterations per epoch on 64 images, without evaluation.

    Args:
        overrides: ``key__subkey=value`` for ``key.subkey``.
    """
    cfg = Config.fromfile(CONFIG)
    del cfg.model["channels_last"]  # so that the stock algorithms take the config too
    for option in ("type", "dtype", "loss_scale"):  # the same on each machine
        del cfg.optim_wrapper[option]
    options = {
        "work_dir": str(work_dir),
        **TINY_BACKBONE,
        **TINY_PRETRAINING,
        "train_dataloader.batch_size": 16,
        "train_dataloader.num_workers": 0,
        "train_dataloader.dataset.data_root": str(data_root),
        "train_dataloader.dataset.indices": 64,
        "train_cfg.max_epochs": 2,
        "default_hooks.logger.interval": 1,
        "default_hooks.checkpoint.interval": 1,
        "default_hooks.checkpoint.max_keep_ckpts": 10,
        "randomness.seed": 0,
        "val_cfg": None,
        "val_dataloader": None,
        "val_evaluator": None,
        "test_cfg": None,
        "test_dataloader": None,
        "test_evaluator": None,
        "launcher": "none",
        **{key.replace("__", "."): deepcopy(value) for key, value in overrides.items()},
    }
    cfg.merge_from_dict(options)
    return cfg


def norm_free():
    """Overrides without batch statistics, so that the number of ranks plays no part."""
    group_norm = dict(type="GN", num_groups=1)
    no_norm = dict(norm_cfg=group_norm, with_last_bn=False)
    return {
        "model__backbone__norm_cfg": group_norm,
        **{f"model__neck__{k}": v for k, v in no_norm.items()},
        **{f"model__head__predictor__{k}": v for k, v in no_norm.items()},
    }


def build_runner(cfg):
    """The Runner that tools/train.py would build."""
    # One name per Runner: the logger and the message hub are looked up by it.
    build_runner.count = getattr(build_runner, "count", 0) + 1
    cfg.experiment_name = f"test_{build_runner.count}"
    prepare_torch()
    load_checkpoints_safely()
    set_dataloader_defaults(cfg)
    fit_schedule(cfg)
    adapt_to_machine(cfg)
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
