#!/usr/bin/env python
"""Evaluate a checkpoint: MMPretrain's tools/test.py, on GPUs or CPUs."""

import argparse

from options import add_common_arguments


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="test config, here or an installed one")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", help="file for metrics (.json) or predictions (.pkl)")
    parser.add_argument(
        "--out-item",
        choices=["metrics", "pred"],
        default="metrics",
        help="what --out holds (default: metrics)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import mmengine
from mmengine.evaluator import DumpResults

from snclr_mm.cli import (
    build_runner,
    check_annotations,
    check_data_roots,
    load_config,
    merge_options,
    set_dataloader_defaults,
)


def merge_args(cfg, args: argparse.Namespace) -> None:
    """Merge the command line into the config, ``--cfg-options`` last."""
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    merge_options(cfg, args.cfg_options)
    set_dataloader_defaults(cfg, pin_memory=False if args.no_pin_memory else None)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args)
    merge_args(cfg, args)
    check_data_roots(cfg, stages=["test"])
    with build_runner(cfg, args.trust_checkpoint, training=False) as runner:
        check_annotations(runner, ["test"])
        if args.out and args.out_item == "pred":
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        metrics = runner.test()
    if args.out and args.out_item == "metrics" and runner.rank == 0:
        mmengine.dump(metrics, args.out)


if __name__ == "__main__":
    main()
