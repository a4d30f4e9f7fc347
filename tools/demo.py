#!/usr/bin/env python
"""Pretrain SNCLR on Fashion-MNIST and evaluate it; two CPU cores suffice.

Prints and writes the accuracy (percent) of a linear probe on 10 labels per class, of
one on all labels, and of weighted kNN, for the pretrained network, the same network
with random weights, and raw pixels; and draws the course of training and some images
with their neighbors.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from options import CfgOptions

REPOSITORY = Path(__file__).parents[1]
CONFIG = REPOSITORY / "configs/snclr_resnet-tiny_1xb128-gpu-aug-30e_fashion-mnist.py"
#: Name in the table and in results.json -> protocol, name of its result.
RESULTS = {
    "linear_10_per_class": ("few-shot", "few-shot-10"),
    "linear": ("linear", "linear"),
    "knn": ("knn", "knn"),
}
STEPS = 5
SHOWN_NEIGHBORS = 10


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=10000, help="training images; at most 60000")
    add("--epochs", type=int, default=30)
    add("--seed", type=int, default=0)
    add("--work-dir", type=Path, default=REPOSITORY / "work_dirs/demo")
    add("--data-root", type=Path, default=REPOSITORY / "data/fashion-mnist")
    add("--resume", action="store_true", help="continue an interrupted run")
    add(
        "--cfg-options", nargs="+", action=CfgOptions, default={}, help="as in train.py"
    )
    args = parser.parse_args(argv)
    if not 200 <= args.images <= 60000:
        parser.error(f"--images {args.images}: must be between 200 and 60000")
    if args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: must be at least 1")
    return args


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import snclr_mm  # noqa: F401  (first: it makes mmpretrain importable)

# isort: split
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.device import get_device
from torch import nn

from snclr_mm.cli import build_runner, merge_options, set_dataloader_defaults
from snclr_mm.evaluation import Pixels, Split, build_splits
from snclr_mm.evaluation.protocols import (
    ProtocolSettings,
    extract_pair,
    run_protocol,
    summarize,
)
from snclr_mm.visualization import (
    find_neighbors,
    plot_neighbors,
    plot_training,
    read_scalars,
)

SETTINGS = ProtocolSettings(knn_k=[20], per_class=[10])


def prepare_data(root: Path) -> None:
    """Run the tool that fetches and checks Fashion-MNIST; exit where it fails."""
    script = Path(__file__).with_name("data") / "prepare_fashion_mnist.py"
    if code := subprocess.call([sys.executable, str(script), str(root)]):
        sys.exit(code)


def build_config(args: argparse.Namespace) -> Config:
    """The repository's small config with the demo's data and length."""
    cfg = Config.fromfile(CONFIG)
    options = {
        "work_dir": str(args.work_dir),
        "launcher": "none",
        "resume": args.resume,
        "randomness.seed": args.seed,
        "train_cfg.max_epochs": args.epochs,
        "custom_hooks.0.start_epoch": args.epochs // 5,
        # Three evaluations are enough for the curve, and take little of the time.
        "train_cfg.val_interval": -(-args.epochs // 3),
        "test_cfg": None,
        "test_dataloader": None,
        "test_evaluator": None,
    }
    for loader in ("train_dataloader", "val_dataloader", "val_cfg.bank_dataloader"):
        options[f"{loader}.dataset.data_root"] = str(args.data_root)
        if loader != "val_dataloader":
            options[f"{loader}.dataset.indices"] = args.images
    cfg.merge_from_dict(options)
    merge_options(cfg, args.cfg_options)
    set_dataloader_defaults(cfg)
    return cfg


def step(number: int, text: str) -> None:
    print(f"\n[{number}/{STEPS}] {time.strftime('%H:%M:%S')} {text}", flush=True)


def evaluate(name: str, model: nn.Module, splits: tuple[Split, Split]) -> dict:
    """The accuracies of a network or of raw pixels, percent, as in ``RESULTS``."""
    pair = extract_pair(model, splits, get_device())
    protocols = [protocol for protocol, _ in RESULTS.values()]
    found = summarize({p: run_protocol(p, *pair, SETTINGS) for p in protocols})
    accuracies = {key: found[row] for key, (_, row) in RESULTS.items()}
    cells = ", ".join(f"{key} {value:.2f} %" for key, value in accuracies.items())
    print(f"  {name}: {cells}", flush=True)
    return accuracies


def draw_neighbors(model: nn.Module, splits: tuple[Split, Split], path: Path) -> None:
    """Draw the first test image of each of eight classes with its neighbors."""
    train, test = (split.dataset for split in splits)
    labels = [test.get_data_info(row)["gt_label"] for row in range(200)]
    chosen = [test[labels.index(label)] for label in range(8)]
    candidates = splits[0].dataloader[: -(-4096 // 500)]
    model.eval()
    found = find_neighbors(model, candidates, default_collate(chosen), SHOWN_NEIGHBORS)
    neighbors = [[train[row] for row in rows] for rows in found.index.tolist()]

    def name(sample: dict) -> str:
        return train.CLASSES[int(sample["data_samples"].gt_label)]

    plot_neighbors(
        [sample["inputs"][0].numpy() for sample in chosen],
        [[sample["inputs"][0].numpy() for sample in row] for row in neighbors],
        found.score.numpy(),
        path,
        found.chance,
        [name(sample) for sample in chosen],
        [[name(sample) for sample in row] for row in neighbors],
    )


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    start = time.time()
    step(1, "Data")
    prepare_data(args.data_root)
    with build_runner(build_config(args)) as runner:
        model = runner.model
        model.init_weights()
        model.init_weights = lambda: None  # Runner.train() would do it again, and warn
    # Read once: they serve the evaluations of three models and the pictures.
    splits = [
        split._replace(dataloader=list(split.dataloader))
        for split in build_splits(runner.cfg)
    ]

    step(2, f"Random weights and raw pixels ({args.images} training images)")
    random = evaluate("random", model, splits)
    pixels = evaluate("pixels", Pixels(), splits)

    step(3, f"SNCLR pretraining, {args.epochs} epochs on {get_device()} (see eta)")
    train_start = time.time()
    runner.train()
    minutes = (time.time() - train_start) / 60
    print(f"  {minutes:.1f} minutes with kNN evaluation.")

    step(4, "Evaluation")
    snclr = evaluate("snclr", model, splits)

    step(5, "Pictures")
    scalars = read_scalars(args.work_dir)
    references = {"raw pixels": pixels["knn"], "random": random["knn"]}
    plot_training(scalars, args.work_dir / "training.png", references)
    draw_neighbors(model, splits, args.work_dir / "neighbors.png")

    columns = {"snclr": snclr, "random": random, "pixels": pixels}
    summary = {key: {name: c[key] for name, c in columns.items()} for key in RESULTS}
    print(
        "\nFashion-MNIST, {} training and {} test images:\n".format(
            *(len(split.rows) for split in splits)
        )
    )
    print(f"{'accuracy (%)':24}{'SNCLR':>10}{'random':>10}{'pixels':>10}")
    for key, row in summary.items():
        print(f"{key:24}" + "".join(f"{value:10.2f}" for value in row.values()))
    summary["settings"] = {
        "images": args.images,
        "epochs": args.epochs,
        "seed": args.seed,
        "device": get_device(),
        "training_minutes": round(scalars["loss"][-1][0], 2),
    }
    (args.work_dir / "results.json").write_text(json.dumps(summary, indent=2) + "\n")
    print()
    for name in ("results.json", "training.png", "neighbors.png"):
        print(args.work_dir / name)
    print(f"{(time.time() - start) / 60:.1f} minutes in all.")
    return summary


if __name__ == "__main__":
    main()
