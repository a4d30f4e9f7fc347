#!/usr/bin/env python
"""Evaluate frozen features: kNN, retrieval, linear probes on many or few labels, SVMs.

Prints a table and writes all results as JSON; docs/evaluation.md says what each
protocol computes. Results are written as soon as they are there.
"""

import argparse
import hashlib
import itertools
import json
import os
from dataclasses import fields
from pathlib import Path

from options import CfgOptions, add_image_folders

PROTOCOLS = ("knn", "retrieval", "linear", "few-shot", "semi-supervised", "svm")
PROTOCOLS += ("svm-low-shot",)
REFERENCES = ("random", "pixels")
DATA_KEYS = (
    "train_dataloader", "val_dataloader", "val_cfg", "test_dataloader", "test_cfg",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("config", help="pretraining config; here or in the repository")
    add(
        "checkpoint",
        help="checkpoint file; or `random` for random weights, `pixels` for raw pixels",
    )
    add(
        "--protocols",
        nargs="+",
        choices=PROTOCOLS,
        default=["knn", "linear"],
        help="default: knn linear",
    )
    add("--seed", type=int, default=0, help="of `random`")
    add("--device", help="default: a GPU if there is one")
    add("--feature-cache", type=Path, metavar="DIR", help="keep features there")
    add(
        "--out",
        type=Path,
        help="JSON file (default: CHECKPOINT_SPLIT.json beside the checkpoint)",
    )
    add("--trust-checkpoint", action="store_true", help="as in tools/train.py")
    add(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        default={},
        help="override settings: key=value, those of --data's dataloaders included",
    )

    group = parser.add_argument_group("data")
    add_image_folders(group)
    add = group.add_argument
    add(
        "--data",
        nargs="+",
        metavar="CONFIG",
        help="take the dataloaders of this config instead; or train=DIR test=DIR, two "
        "folders of labeled images with a sub-folder per class",
    )
    add(
        "--split",
        choices=["val", "test"],
        default="val",
        help="evaluate on val_dataloader (default) or test_dataloader",
    )
    add(
        "--holdout",
        type=int,
        metavar="N",
        help="evaluate on the last N training images, and train on those before them: "
        "to choose settings without the test set",
    )
    add("--train-images", type=int, metavar="N", help="the first N training images")

    add = parser.add_argument_group("settings of the protocols").add_argument
    for name, kind, text in (
        ("knn_k", int, "default: 1 10 20 200, as far as there are images"),
        ("knn_temperature", float, "every k with every T; default: 0.07"),
        ("per_class", int, "labels per class of few-shot; default: 1 5 10"),
        ("percent", float, "labels of semi-supervised; default: 1 10"),
        ("shots", int, "positives per class of svm-low-shot; default: 1 2 4 ... 96"),
    ):
        add(f"--{name.replace('_', '-')}", type=kind, nargs="+", help=text)
    text = "random draws of few-shot and svm-low-shot; default: 5"
    add("--draws", type=int, help=text)
    args = parser.parse_args(argv)
    if args.draws is not None and args.draws < 1:
        parser.error(f"--draws {args.draws}: must be at least 1")
    parts = dict(part.split("=", 1) for part in args.data or () if "=" in part)
    if args.data and not parts and len(args.data) == 1:
        args.data = args.data[0]
    elif args.data:
        if sorted(parts) != ["test", "train"] or len(args.data) > 2 or args.data_root:
            parser.error("--data takes one config, or train=DIR test=DIR")
        args.data_root, args.val_data_root = parts["train"], parts["test"]
        args.data = None
    if (args.data_root is None) != (args.val_data_root is None):
        parser.error("--data-root and --val-data-root go together")
    return args


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import snclr_mm  # noqa: F401  (first: it makes mmpretrain importable)

# isort: split
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmpretrain.registry import MODELS
from torch import nn

from snclr_mm.cli import (
    check_data_roots,
    check_pretrained,
    dataloaders,
    explain_refusal,
    explain_sizes,
    load_checkpoints_safely,
    merge_options,
    read_config,
    set_image_folders,
)
from snclr_mm.datasets import holds_rgb, sees_rgb, set_to_rgb
from snclr_mm.evaluation import (
    FeatureCache,
    Pixels,
    Split,
    build_splits,
    check_knn,
    describe_images,
    hash_weights,
)
from snclr_mm.evaluation.protocols import (
    MULTI_LABEL,
    ProtocolSettings,
    extract_pair,
    run_protocol,
    summarize,
)


def load_config(args: argparse.Namespace) -> Config:
    """The pretraining config, with the data of --data where given."""
    cfg = read_config(args.config)
    if args.data is not None:
        data = read_config(args.data)
        # Normalisation is the network's, the order of the channels the data's.
        files = not any(holds_rgb(part.dataset) for part in dataloaders(data).values())
        turn = sees_rgb(cfg) == files
        set_to_rgb(cfg, (data.get("data_preprocessor") or {}).get("to_rgb", turn))
        for key in DATA_KEYS:
            cfg[key] = data.get(key)
    if args.data_root is not None:
        set_image_folders(cfg, args.data_root, args.val_data_root)
    merge_options(cfg, args.cfg_options)
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor") or {})
    return cfg


def build_model(cfg: Config, args: argparse.Namespace) -> nn.Module:
    """Build what the checkpoint argument names: a network, or raw pixels."""
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
    with explain_refusal():
        check_pretrained(model)
    return model.to(args.device)


def check(
    splits: tuple[Split, Split], args: argparse.Namespace, settings: ProtocolSettings
) -> None:
    """Find what can't work before features are extracted."""
    train = splits[0]
    for k in settings.knn_k or ():
        check_knn(k, min(settings.knn_temperature), len(train.rows))
    refused = [name for name in args.protocols if name not in MULTI_LABEL]
    if train.num_classes is not None and refused:
        raise ValueError(
            f"--protocols {' '.join(refused)}: {train.name}.dataset has several labels "
            f"per image, which only {' and '.join(MULTI_LABEL)} take."
        )


def hash_settings(split: Split) -> str:
    """SHA-256 of the dataset's config, wherever the data are."""
    places = ("data_root", "cache_dir")
    settings = {k: v for k, v in split.config.items() if k not in places}
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def default_out(cfg: Config, args: argparse.Namespace) -> Path:
    """CHECKPOINT_SPLIT.json; of the references in the config's work_dir."""
    split = args.split if args.holdout is None else "holdout"
    if args.checkpoint in REFERENCES:
        folder = Path(cfg.get("work_dir") or Path("work_dirs") / Path(args.config).stem)
        name = "pixels" if args.checkpoint == "pixels" else f"random{args.seed}"
    else:
        file = Path(args.checkpoint)
        folder, name = Path() if "://" in args.checkpoint else file.parent, file.stem
    data = args.data or args.val_data_root
    data = f"_{Path(data).stem}" if data else ""
    return folder / f"{name}{data}_{split}.json"


def write(path: Path, record: dict) -> None:
    """Write JSON at once or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(record, indent=2) + "\n")
    unfinished.replace(path)


def read_results(path: Path, identity: dict) -> dict | None:
    """Results that an earlier call wrote for the same features.

    None where the file has results of others.
    """
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    same = all(record.get(key) == value for key, value in identity.items())
    return record["results"] if same else None


def keep(path: Path) -> None:
    """Give a file another name."""
    files = (path.with_name(f"{path.stem}.old{i}.json") for i in itertools.count(1))
    free = next(file for file in files if not file.exists())
    path.rename(free)
    print(f"{path} had results of other features or data: they are in {free} now.")


def print_tables(results: list[dict]) -> None:
    print(f"\n{'protocol':22}{'setting':28}{'result (%)':>10}")
    for row in (row for result in results for row in result["table"]):
        std = "" if row["std"] is None else f" ± {row['std']:.2f}"
        print(f"{row['name']:22}{row['setting']:28}{row['value']:10.2f}{std}")
    for grid in (result["grid"] for result in results if "grid" in result):
        if len(grid) == 1:
            continue
        temperatures = list(dict.fromkeys(cell["temperature"] for cell in grid))
        print("\nknn" + "".join(f"{f'T = {t:g}':>12}" for t in temperatures))
        for k in dict.fromkeys(cell["k"] for cell in grid):
            values = [cell["accuracy"] for cell in grid if cell["k"] == k]
            print(f"k = {k:<6}" + "".join(f"{value:12.2f}" for value in values))


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    args.device = args.device or get_device()
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
    given = {
        field.name: getattr(args, field.name) for field in fields(ProtocolSettings)
    }
    settings = ProtocolSettings(**{k: v for k, v in given.items() if v is not None})
    check(splits, args, settings)
    model = build_model(cfg, args)
    out = args.out or default_out(cfg, args)
    identity = {
        "config": args.config,
        "cfg_options": {key: str(value) for key, value in args.cfg_options.items()},
        "checkpoint": args.checkpoint,
        "weights": hash_weights(model),
    }
    folders = (args.data_root, args.val_data_root)
    for name, split, folder in zip(("train", "test"), splits, folders, strict=True):
        identity[name] = {
            "dataloader": folder or args.data or args.config,
            "dataset": f"{split.name}.dataset",
            "settings": hash_settings(split),
            **describe_images(split.dataset, split.rows),
        }
    cache = args.feature_cache and FeatureCache(args.feature_cache, cfg.model)
    with explain_sizes(f"{args.split}_dataloader"):
        train, test = extract_pair(model, splits, args.device, cache)

    out.parent.mkdir(parents=True, exist_ok=True)
    results = read_results(out, identity)
    others, results = results is None, results or {}
    for name in args.protocols:
        results[name] = run_protocol(name, train, test, settings)
        record = {**identity, "summary": summarize(results), "results": results}
        if others:
            keep(out)
            others = False
        write(out, record)

    print(
        f"\n{args.checkpoint}: {len(train[0])} training images ({splits[0].name}), "
        f"{len(test[0])} test images ({splits[1].name}), {train[0].shape[1]} features"
    )
    print_tables([results[name] for name in args.protocols])
    print(f"\n{out}")
    return record


if __name__ == "__main__":
    main()
