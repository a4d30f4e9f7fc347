#!/usr/bin/env python
"""Train from a config: MMPretrain's tools/train.py, on GPUs or CPUs."""

import argparse

from options import add_common_arguments, add_image_folders


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="train config, here or an installed one")
    add_image_folders(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="resume from this checkpoint; without a path, from the latest of work-dir",
    )
    parser.add_argument(
        "--no-validate", action="store_true", help="no evaluation while training"
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the LR by the actual over the config's batch size",
    )
    parser.add_argument("--no-persistent-workers", action="store_true")
    parser.add_argument(
        "--pretrained",
        metavar="FILE",
        help="start the benchmark's backbone from this pretraining checkpoint",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

from snclr_mm.cli import (
    announce,
    build_runner,
    check_annotations,
    check_data_roots,
    check_pretrained,
    explain_sizes,
    fit_to_images,
    load_config,
    merge_options,
    set_dataloader_defaults,
    set_image_folders,
    set_pretrained,
)


def merge_args(cfg, args: argparse.Namespace) -> None:
    """Merge the command line into the config, ``--cfg-options`` last."""
    if args.data_root is not None:
        if cfg.model.get("type") == "ImageClassifier":
            raise SystemExit(
                "--data-root is for configs that pretrain: set the dataloaders of one "
                "that learns from labels."
            )
        set_image_folders(cfg, args.data_root, args.val_data_root)
    elif args.val_data_root is not None:
        raise SystemExit("--val-data-root needs --data-root.")
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    if args.auto_scale_lr:
        if cfg.get("auto_scale_lr") is None:
            raise SystemExit(
                "--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the "
                "config."
            )
        cfg.auto_scale_lr.enable = True
    merge_options(cfg, args.cfg_options)
    if args.pretrained is not None:
        set_pretrained(cfg.model, args.pretrained)
    set_dataloader_defaults(
        cfg,
        pin_memory=False if args.no_pin_memory else None,
        persistent_workers=False if args.no_persistent_workers else None,
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args)
    merge_args(cfg, args)
    check_data_roots(cfg)
    notes = fit_to_images(cfg)
    with build_runner(cfg, args.trust_checkpoint) as runner:
        check_pretrained(runner.model)
        check_annotations(runner, ["train", "val"])
        announce(runner, notes)
        with explain_sizes("train_dataloader"):
            runner.train()


if __name__ == "__main__":
    main()
