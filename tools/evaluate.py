#!/usr/bin/env python
"""Evaluate frozen features: kNN, linear probes on many or few labels, SVMs.

Prints a table and writes all results as JSON; docs/evaluation.md says what each
protocol computes. If one fails, the results before it are in FILE.partial.json.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

sys.path.insert(0, str(Path(__file__).parents[1]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmpretrain.registry import MODELS
from rich.progress import track
from torch import Tensor, nn

from snclr_mm.cli import (
    check_data_roots,
    check_pretrained,
    find_config,
    load_checkpoints_safely,
)
from snclr_mm.evaluation import (
    SHOTS,
    FeatureCache,
    Pixels,
    Split,
    build_splits,
    check_knn,
    drop_equal_channels,
    extract_features,
    few_shot_accuracies,
    hash_weights,
    knn_grid,
    largest_shot,
    linear_svm,
    low_shot_svm,
    semi_supervised_probe,
    sweep_linear_probe,
)

REFERENCES = ("random", "pixels")
DATA_KEYS = (
    "train_dataloader", "val_dataloader", "val_cfg", "test_dataloader", "test_cfg",
)  # fmt: skip
HEADLINE_KNN = (20, 0.07)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="pretraining config; here or in the repository")
    parser.add_argument(
        "checkpoint",
        help="checkpoint file; or `random` for random weights, `pixels` for raw pixels",
    )
    parser.add_argument(
        "--protocols",
        nargs="+",
        choices=PROTOCOLS,
        default=["knn", "linear"],
        help="default: knn linear",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", metavar="CONFIG", help="take the dataloaders of this config instead"
    )
    data.add_argument(
        "--split",
        choices=["val", "test"],
        default="val",
        help="evaluate on val_dataloader (default) or test_dataloader",
    )
    data.add_argument(
        "--holdout",
        type=int,
        metavar="N",
        help="evaluate on the last N training images, and train on those before them: "
        "to choose settings without the test set",
    )
    data.add_argument(
        "--train-images", type=int, metavar="N", help="use the first N training images"
    )
    settings = parser.add_argument_group("settings of the protocols")
    settings.add_argument(
        "--knn-k",
        type=int,
        nargs="+",
        help="default: 1 10 20 200, as far as there are images",
    )
    settings.add_argument(
        "--knn-temperature",
        type=float,
        nargs="+",
        default=[0.07],
        help="every k is combined with every T (default: 0.07)",
    )
    settings.add_argument(
        "--per-class",
        type=int,
        nargs="+",
        default=[1, 5, 10],
        help="labels per class of few-shot (default: 1 5 10)",
    )
    settings.add_argument(
        "--draws",
        type=int,
        default=5,
        help="random draws of few-shot and svm-low-shot (default: 5)",
    )
    settings.add_argument(
        "--percent",
        type=float,
        nargs="+",
        default=[1, 10],
        help="labels of semi-supervised (default: 1 10)",
    )
    settings.add_argument(
        "--shots",
        type=int,
        nargs="+",
        help="positives per class of svm-low-shot (default: "
        f"{' '.join(map(str, SHOTS))}, as far as there are images)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of `random` (default: 0)")
    parser.add_argument("--device", default=get_device(), help="default: %(default)s")
    parser.add_argument(
        "--feature-cache", type=Path, metavar="DIR", help="keep features there"
    )
    parser.add_argument("--work-dir", type=Path, help="folder of the JSON file")
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file (default: CHECKPOINT_SPLIT.json in work-dir, else beside the "
        "checkpoint)",
    )
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="as in tools/train.py"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        help="override settings: key=value, those of --data's dataloaders included",
    )
    args = parser.parse_args(argv)
    if args.draws < 1:
        parser.error(f"--draws {args.draws}: must be at least 1")
    return args


def load_config(args: argparse.Namespace) -> Config:
    """The pretraining config, with the data of --data where given."""
    cfg = Config.fromfile(find_config(args.config))
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor") or {})
    if args.data is not None:
        data = Config.fromfile(find_config(args.data))
        for key in DATA_KEYS:
            cfg[key] = data.get(key)
        # Normalisation is the network's, the order of the channels the data's.
        if "to_rgb" in data.get("data_preprocessor", {}):
            cfg.model.data_preprocessor.to_rgb = data.data_preprocessor.to_rgb
    cfg.merge_from_dict(args.cfg_options)
    return cfg


def build_model(cfg: Config, args: argparse.Namespace) -> nn.Module:
    """Build what the checkpoint argument names: a network, or raw pixels.

    Raises:
        SystemExit: If the checkpoint may run code.
    """
    if args.checkpoint == "pixels":
        return Pixels()
    set_random_seed(args.seed)
    MMLogger.get_current_instance().setLevel("WARNING")  # else pages of parameters
    for part in (cfg.model, cfg.model.backbone):
        part.pop("pretrained", None)
        if "Pretrained" in str(part.get("init_cfg")):
            del part["init_cfg"]
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if args.checkpoint == "random":
        model.init_weights()
        return model.to(args.device)
    model.backbone.init_cfg = dict(
        type="Pretrained", checkpoint=args.checkpoint, prefix="backbone"
    )
    try:
        check_pretrained(model)
    except UnpicklingError as error:
        raise SystemExit(
            f"The checkpoint holds more than tensors and plain data: {error}\n"
            "If you trust its source, pass --trust-checkpoint."
        ) from None
    return model.to(args.device)


def get_features(
    cfg: Config, model: nn.Module, splits: tuple[Split, Split], args: argparse.Namespace
) -> list[tuple[Tensor, Tensor]]:
    """Features and labels of training and test images.

    Raises:
        ValueError: If features are not finite, or an image has no label.
    """
    pair = []
    for split in splits:
        extract = partial(
            extract_features,
            model,
            split.dataloader,
            f"{split.name}.dataset",
            partial(track, description=f"  {split.name}, {len(split.rows)} images"),
            split.num_classes,
        )
        if args.feature_cache is None:
            part = extract()
        else:
            cache = FeatureCache(args.feature_cache, cfg.model)
            part = cache.get(model, split, extract)
        pair.append(tuple(tensor.to(args.device) for tensor in part))
    if args.checkpoint == "pixels":
        features = drop_equal_channels(*(part[0] for part in pair))
        pair = [(new, old[1]) for new, old in zip(features, pair, strict=True)]
    return pair


def row(name: str, setting: str, value: float, std: float | None = None) -> dict:
    """One line of the table."""
    return {"name": name, "setting": setting, "value": value, "std": std}


def run_knn(train: tuple, test: tuple, args: argparse.Namespace) -> dict:
    ks = args.knn_k or [k for k in (1, 10, 20, 200) if k <= len(train[0])]
    progress = partial(track, description="  knn")
    predicted = knn_grid(test[0], *train, ks, args.knn_temperature, progress=progress)
    grid = {
        pair: 100 * (labels == test[1]).double().mean().item()
        for pair, labels in predicted.items()
    }
    best = HEADLINE_KNN if HEADLINE_KNN in grid else next(iter(grid))
    return {
        "table": [row("knn", "k = {}, T = {}".format(*best), grid[best])],
        "grid": [
            {"k": k, "temperature": temperature, "accuracy": value}
            for (k, temperature), value in grid.items()
        ],
    }


def run_linear(train: tuple, test: tuple, args: argparse.Namespace) -> dict:
    print("  linear", flush=True)
    result = sweep_linear_probe(*train, *test)
    line = row("linear", f"C = {result['C']:g}", result["accuracy"])
    return {"table": [line], **result}


def run_few_shot(train: tuple, test: tuple, args: argparse.Namespace) -> dict:
    table, accuracies = [], {}
    for count in track(args.per_class, description="  few-shot"):
        values = few_shot_accuracies(*train, *test, count, args.draws)
        setting = f"{count} per class, {args.draws} draws"
        mean, std = float(np.mean(values)), float(np.std(values))
        table.append(row(f"few-shot-{count}", setting, mean, std))
        accuracies[str(count)] = values
    return {"table": table, "draws": accuracies}


def run_semi_supervised(train: tuple, test: tuple, args: argparse.Namespace) -> dict:
    table, results = [], {}
    for percent in track(args.percent, description="  semi-supervised"):
        result = semi_supervised_probe(*train, *test, percent)
        setting = f"{result['num_labels']} labels, C = {result['C']:g}"
        name = f"semi-supervised-{percent:g}"
        table.append(row(name, setting, result["accuracy"]))
        results[f"{percent:g}"] = result
    return {"table": table, "percent": results}


def run_svm(train: tuple, test: tuple, args: argparse.Namespace) -> dict:
    print("  svm", flush=True)
    result = linear_svm(*train, *test)
    line = row("svm", f"mAP of {len(result['ap'])} classes", result["mean_ap"])
    return {"table": [line], **result}


def run_svm_low_shot(train: tuple, test: tuple, args: argparse.Namespace) -> dict:
    table, results = [], {}
    possible = [k for k in SHOTS if k <= largest_shot(train[1])]
    for shots in track(args.shots or possible, description="  svm-low-shot"):
        result = low_shot_svm(*train, *test, shots, args.draws)
        setting = f"mAP, {args.draws} draws, C = {result['C']:g}"
        name = f"svm-low-shot-{shots}"
        table.append(row(name, setting, result["mean_ap"], result["std"]))
        results[str(shots)] = result
    return {"table": table, "shots": results}


PROTOCOLS = {
    "knn": run_knn,
    "linear": run_linear,
    "few-shot": run_few_shot,
    "semi-supervised": run_semi_supervised,
    "svm": run_svm,
    "svm-low-shot": run_svm_low_shot,
}
MULTI_LABEL = ("svm", "svm-low-shot")


def check(splits: tuple[Split, Split], args: argparse.Namespace) -> None:
    """Find what can't work before features are extracted.

    Raises:
        ValueError: If k is larger than the bank, or a protocol does not take the data.
    """
    train = splits[0]
    for k in args.knn_k or ():
        check_knn(k, min(args.knn_temperature), len(train.rows))
    refused = [name for name in args.protocols if name not in MULTI_LABEL]
    if train.num_classes is not None and refused:
        raise ValueError(
            f"--protocols {' '.join(refused)}: {train.name}.dataset has several labels "
            f"per image, which only {' and '.join(MULTI_LABEL)} take."
        )


def default_out(cfg: Config, args: argparse.Namespace) -> Path:
    split = args.split if args.holdout is None else "holdout"
    if args.checkpoint in REFERENCES:
        folder = Path(cfg.get("work_dir") or Path("work_dirs") / Path(args.config).stem)
        name = args.checkpoint
        name += f"{args.seed}" if name == "random" else ""
    else:
        folder, name = Path(args.checkpoint).parent, Path(args.checkpoint).stem
    data = f"_{Path(args.data).stem}" if args.data else ""
    return (args.work_dir or folder) / f"{name}{data}_{split}.json"


def write(path: Path, record: dict) -> None:
    """Write JSON at once or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(record, indent=2) + "\n")
    unfinished.replace(path)


def read_results(path: Path, identity: dict) -> dict:
    """Results of other protocols that an earlier call wrote for the same features."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    same = all(record.get(key) == value for key, value in identity.items())
    return record["results"] if same else {}


def print_tables(results: dict[str, dict]) -> None:
    print(f"\n{'protocol':22}{'setting':28}{'result (%)':>10}")
    for result in results.values():
        for line in result["table"]:
            std = "" if line["std"] is None else f" ± {line['std']:.2f}"
            name, setting, value = line["name"], line["setting"], line["value"]
            print(f"{name:22}{setting:28}{value:10.2f}{std}")
    grid = results.get("knn", {}).get("grid", [])
    if len(grid) > 1:
        temperatures = list(dict.fromkeys(cell["temperature"] for cell in grid))
        print("\nknn" + "".join(f"{f'T = {t:g}':>12}" for t in temperatures))
        for k in dict.fromkeys(cell["k"] for cell in grid):
            values = [cell["accuracy"] for cell in grid if cell["k"] == k]
            print(f"k = {k:<6}" + "".join(f"{value:12.2f}" for value in values))


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    is_file = args.checkpoint not in REFERENCES and "://" not in args.checkpoint
    if is_file and not Path(args.checkpoint).is_file():
        raise FileNotFoundError(
            f"There is no checkpoint {args.checkpoint!r} (working directory: "
            f"{Path.cwd()}); give a file, or one of {', '.join(REFERENCES)}."
        )
    load_checkpoints_safely(args.trust_checkpoint)
    cfg = load_config(args)
    init_default_scope(cfg.get("default_scope", "mmpretrain"))
    check_data_roots(cfg, stages=[args.split])
    splits = build_splits(cfg, args.split, args.holdout, args.train_images)
    check(splits, args)
    model = build_model(cfg, args)
    train, test = get_features(cfg, model, splits, args)

    out = args.out or default_out(cfg, args)
    identity = {
        "config": args.config,
        "cfg_options": {key: str(value) for key, value in args.cfg_options.items()},
        "checkpoint": args.checkpoint,
        "weights": hash_weights(model),
    }
    for name, split in zip(("train", "test"), splits, strict=True):
        identity[name] = {
            "dataloader": args.data or args.config,
            "dataset": f"{split.name}.dataset",
            "first": split.rows.start,
            "images": len(split.rows),
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial_out = out.with_name(f"{out.stem}.partial.json")
    results = read_results(out, identity)
    for name in args.protocols:
        results[name] = PROTOCOLS[name](train, test, args)
        summary = {
            line["name"]: round(line["value"], 2)
            for result in results.values()
            for line in result["table"]
        }
        record = {**identity, "summary": summary, "results": results}
        write(partial_out, record)
    partial_out.replace(out)

    print(
        f"\n{args.checkpoint}: {len(train[0])} training images ({splits[0].name}), "
        f"{len(test[0])} test images ({splits[1].name}), {train[0].shape[1]} features"
    )
    print_tables({name: results[name] for name in args.protocols})
    print(f"\n{out}")
    return record


if __name__ == "__main__":
    main()
