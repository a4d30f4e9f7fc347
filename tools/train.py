#!/usr/bin/env python
"""Train from a config: MMPretrain's tools/train.py, on GPUs or CPUs."""

import argparse
import os
import sys
from pathlib import Path
from pickle import UnpicklingError

sys.path.insert(0, str(Path(__file__).parents[1]))

from snclr_mm.engine import (
    adapt_to_machine,
    check_data_roots,
    find_config,
    load_checkpoints_safely,
    set_dataloader_defaults,
)


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="train config; relative paths: here or the repo")
    parser.add_argument("--work-dir", help="where logs and checkpoints go")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="resume from this checkpoint; without a path, from the latest of work-dir",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision training")
    parser.add_argument(
        "--no-validate", action="store_true", help="no evaluation while training"
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the LR by the actual over the config's batch size",
    )
    parser.add_argument("--no-pin-memory", action="store_true")
    parser.add_argument("--no-persistent-workers", action="store_true")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold more than tensors and plain data; a pickle can "
        "run any code, so only for files whose source you trust",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help="override settings: key=value; lists as key=a,b or key='[a,b]'",
    )
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def merge_args(cfg, args: argparse.Namespace):
    """Merge the command line into the config, ``--cfg-options`` last."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    if args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    if args.auto_scale_lr:
        if cfg.get("auto_scale_lr") is None:
            raise ValueError(
                "--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the "
                "config."
            )
        cfg.auto_scale_lr.enable = True
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    set_dataloader_defaults(
        cfg,
        pin_memory=False if args.no_pin_memory else None,
        persistent_workers=False if args.no_persistent_workers else None,
    )
    return cfg


def main() -> None:
    args = parse_args()
    from mmengine.config import Config
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    cfg = merge_args(Config.fromfile(find_config(args.config)), args)
    check_data_roots(cfg)
    load_checkpoints_safely(trust=args.trust_checkpoint)
    notes = adapt_to_machine(cfg)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    for note in notes:
        runner.logger.warning(note)
    try:
        runner.train()
    except UnpicklingError as error:
        raise SystemExit(
            f"The checkpoint holds more than tensors and plain data: {error}\n"
            "If you trust its source, pass --trust-checkpoint."
        ) from None


if __name__ == "__main__":
    main()
