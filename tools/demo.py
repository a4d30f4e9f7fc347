#!/usr/bin/env python
"""Pretrain SNCLR on Fashion-MNIST and evaluate it; two CPU cores suffice.

Prints and writes the accuracy (percent) of weighted kNN, of a linear probe on all
labels and of one on 10 labels per class, for the pretrained network, the same network
with random weights, and raw pixels; and draws the course of training and some images
with their neighbors.
"""

import argparse
import contextlib
import io
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from prepare_fashion_mnist import prepare
from rich.progress import track

from snclr_mm.cli import build_runner, set_dataloader_defaults
from snclr_mm.evaluation import (
    Pixels,
    drop_equal_channels,
    extract_features,
    few_shot_probe,
    linear_probe,
    weighted_knn,
)
from snclr_mm.visualization import plot_neighbors, plot_training, read_scalars

REPOSITORY = Path(__file__).parents[1]
CONFIG = REPOSITORY / "configs/snclr_resnet-tiny_1xb128_fashion-mnist.py"
STEPS = 5
SHOWN_NEIGHBORS = 10


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=10000, help="training images; 60000 is everything"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work-dir", type=Path, default=REPOSITORY / "work_dirs/demo")
    parser.add_argument(
        "--data-root", type=Path, default=REPOSITORY / "data/fashion-mnist"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, help="as in train.py"
    )
    args = parser.parse_args(argv)
    if not 200 <= args.images <= 60000:
        parser.error(f"--images {args.images}: must be between 200 and 60000")
    if args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: must be at least 1")
    return args


def build_config(args: argparse.Namespace) -> Config:
    """The repository's small config with the demo's data and length."""
    cfg = Config.fromfile(CONFIG)
    root = str(args.data_root)
    cfg.merge_from_dict(
        {
            "work_dir": str(args.work_dir),
            "launcher": "none",
            "resume": args.resume,
            "randomness.seed": args.seed,
            "train_cfg.max_epochs": args.epochs,
            # About ten evaluations: enough for the curve, little of the time.
            "train_cfg.val_interval": max(1, args.epochs // 8),
            "train_dataloader.dataset.data_root": root,
            "train_dataloader.dataset.indices": args.images,
            "val_dataloader.dataset.data_root": root,
            "val_cfg.bank_dataloader.dataset.data_root": root,
            "val_cfg.bank_dataloader.dataset.indices": args.images,
            "test_cfg": None,
            "test_dataloader": None,
            "test_evaluator": None,
            **args.cfg_options,
        }
    )
    set_dataloader_defaults(cfg)
    return cfg


def step(number: int, text: str) -> None:
    print(f"\n[{number}/{STEPS}] {time.strftime('%H:%M:%S')} {text}", flush=True)


def silent_init(cfg: Config) -> Runner:
    """Build the Runner and initialise the weights.

    Pages of environment, config and parameters go to the log file alone.
    """
    with contextlib.redirect_stdout(io.StringIO()), build_runner(cfg) as runner:
        model = runner.model
        model.init_weights()
        model.init_weights = lambda: None  # Runner.train() would do it again, and warn
    for handler in runner.logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stdout)
    return runner


def extract(model, loaders: dict) -> list[tuple]:
    """Features [n, C] and labels [n] of each loader's images."""
    return [
        extract_features(
            model, loader, name, partial(track, description=f"  {name} features")
        )
        for name, loader in loaders.items()
    ]


def evaluate(name: str, train: tuple, test: tuple) -> dict[str, float]:
    """All three accuracies of one kind of features.

    Args:
        name (str): For the progress lines.
        train, test (tuple): Features [n, C] and labels [n].
    """
    features, labels, test_features, test_labels = *train, *test
    predicted = weighted_knn(test_features, features, labels)
    arrays = [t.cpu().numpy() for t in (features, labels, test_features, test_labels)]
    results = {"knn": 100 * (predicted == test_labels).float().mean().item()}
    probes = {"linear": linear_probe, "linear_10_per_class": few_shot_probe}
    for key in track(probes, description=f"  {name} probes"):
        results[key] = probes[key](*arrays)
    cells = ", ".join(f"{key} {value:.2f} %" for key, value in results.items())
    print(f"  {name}: {cells}", flush=True)
    return results


@torch.no_grad()
def find_neighbors(model, train: torch.Tensor, queries: torch.Tensor):
    """Neighbors of query images among training images, as training finds them.

    Args:
        model (SNCLR): The pretrained model.
        train (Tensor): Candidate images, normalised, [Q, 3, H, W].
        queries (Tensor): [n, 3, H, W].

    Returns:
        tuple[Tensor, Tensor]: Index into ``train`` and positiveness, [n, 10] each, of
        the first ten of the K neighbors.
    """
    model.eval()
    queue = MODELS.build(
        dict(type="NeighborQueue", length=len(train), dim=model.head.queue.dim)
    ).to(train.device)
    for batch in train.split(500):
        queue.enqueue(model.momentum_encoder(batch)[0])
    _, index = queue.search(
        model.momentum_encoder(queries)[0], model.head.num_neighbors
    )
    y_1 = model.neck(model.backbone(queries))[0]
    weight = model.head.attention(y_1, queue.features[index])  # of all K
    return index[:, :SHOWN_NEIGHBORS], weight[:, :SHOWN_NEIGHBORS]


def images_of(loader, model, count: int):
    """The first ``count`` images: uint8 grey [n, H, W] and as the model takes them."""
    raw, inputs = [], []
    for batch in loader:
        raw.append(torch.as_tensor(batch["inputs"])[:, 0])
        inputs.append(model.data_preprocessor(batch, False)["inputs"])
        if sum(len(part) for part in raw) >= count:
            break
    return torch.cat(raw)[:count], torch.cat(inputs)[:count]


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    start = time.time()
    step(1, "Data")
    try:
        origin = prepare(args.data_root)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"  Fashion-MNIST is in {args.data_root} ({origin}).")

    cfg = build_config(args)
    runner = silent_init(cfg)
    model = runner.model
    loaders = {
        "train": runner.build_dataloader(cfg.val_cfg.bank_dataloader),
        "test": runner.build_dataloader(cfg.val_dataloader),
    }

    step(2, f"Random weights and raw pixels ({args.images} training images)")
    features = {"random": extract(model, loaders)}
    (images, labels), (test_images, test_labels) = extract(Pixels(), loaders)
    images, test_images = drop_equal_channels(images, test_images)
    features["pixels"] = [(images, labels), (test_images, test_labels)]
    results = {name: evaluate(name, *pair) for name, pair in features.items()}

    step(3, f"SNCLR pretraining, {args.epochs} epochs on {get_device()} (see eta)")
    train_start = time.time()
    runner.train()
    minutes = (time.time() - train_start) / 60
    print(f"  {minutes:.1f} minutes with kNN evaluation.")

    step(4, "Evaluation")
    pair = extract(model, loaders)
    results["snclr"] = evaluate("snclr", *pair)

    step(5, "Pictures")
    plot_training(
        read_scalars(args.work_dir),
        args.work_dir / "training.png",
        {"raw pixels": results["pixels"]["knn"], "random": results["random"]["knn"]},
    )
    train_images, train_inputs = images_of(loaders["train"], model, 4096)
    test_images, test_inputs = images_of(loaders["test"], model, 200)
    labels = [part[1].cpu() for part in pair]
    # The first test image of each of eight classes.
    chosen = torch.stack([(labels[1] == c).nonzero()[0, 0] for c in range(8)])
    index, weight = find_neighbors(model, train_inputs, test_inputs[chosen])
    index = index.cpu()
    plot_neighbors(
        test_images[chosen].numpy(),
        train_images[index].numpy(),
        weight.cpu().numpy(),
        (labels[0][index] == labels[1][chosen][:, None]).numpy(),
        args.work_dir / "neighbors.png",
    )

    protocols = ("knn", "linear", "linear_10_per_class")
    summary = {
        key: {
            name: round(results[name][key], 2) for name in ("snclr", "random", "pixels")
        }
        for key in protocols
    }
    summary["settings"] = {
        "images": args.images,
        "epochs": args.epochs,
        "seed": args.seed,
        "device": get_device(),
        "training_minutes": round(read_scalars(args.work_dir)["loss"][-1][0], 2),
    }
    path = args.work_dir / "results.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")

    sizes = [len(loader.dataset) for loader in loaders.values()]
    print(f"\nFashion-MNIST, {sizes[0]} training and {sizes[1]} test images:\n")
    print(f"{'accuracy (%)':24}{'SNCLR':>10}{'random':>10}{'pixels':>10}")
    for key in protocols:
        cells = "".join(f"{value:10.2f}" for value in summary[key].values())
        print(f"{key:24}{cells}")
    print(
        f"\n{path}\n{args.work_dir / 'training.png'}\n{args.work_dir / 'neighbors.png'}"
        f"\n{(time.time() - start) / 60:.1f} minutes in all."
    )
    return summary


if __name__ == "__main__":
    main()
