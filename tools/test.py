#!/usr/bin/env python
"""Evaluate a checkpoint: MMPretrain's tools/test.py, on GPUs or CPUs."""

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
    parser.add_argument("config", help="test config; relative paths: here or the repo")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--work-dir", help="where the log and the metrics go")
    parser.add_argument(
        "--out", help="file for the metrics (.json) or predictions (.pkl)"
    )
    parser.add_argument(
        "--out-item",
        choices=["metrics", "pred"],
        default="metrics",
        help="what --out holds (default: metrics)",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--no-pin-memory", action="store_true")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint that holds more than tensors and plain data; a pickle "
        "can run any code, so only for files whose source you trust",
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
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    set_dataloader_defaults(cfg, pin_memory=False if args.no_pin_memory else None)
    return cfg


def main() -> None:
    args = parse_args()
    import mmengine
    from mmengine.config import Config
    from mmengine.evaluator import DumpResults
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    cfg = merge_args(Config.fromfile(find_config(args.config)), args)
    check_data_roots(cfg, stages=["test"])
    load_checkpoints_safely(trust=args.trust_checkpoint)
    notes = adapt_to_machine(cfg)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    for note in notes:
        runner.logger.warning(note)
    if args.out and args.out_item == "pred":
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    try:
        metrics = runner.test()
    except UnpicklingError as error:
        raise SystemExit(
            f"The checkpoint holds more than tensors and plain data: {error}\n"
            "If you trust its source, pass --trust-checkpoint."
        ) from None
    if args.out and args.out_item == "metrics" and runner.rank == 0:
        mmengine.dump(metrics, args.out)


if __name__ == "__main__":
    main()
