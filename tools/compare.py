#!/usr/bin/env python
"""Compare methods, or settings of a method, at one budget over several seeds.

Each run pretrains with tools/train.py, and tools/evaluate.py evaluates it.

With --pretrained CHECKPOINT transfer is compared instead. The config is then one of
detection or segmentation that counts in steps, and tools/train.py trains it from random
weights, from the checkpoint, and from the checkpoint in half of the steps.

Each run has a folder of its own under --work-dir, where results.json, table.md and a
picture are written. An interrupted comparison continues where it stopped when it is
started again.
"""

import argparse
import hashlib
import itertools
import json
import os
import queue
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from options import CfgOptions

BASELINES = (
    "mocov3", "byol", "swav", "nnclr", "pnnclr", "nnbyol", "msf", "mnn", "ressl", "sce",
)  # fmt: skip
METHODS = [
    *(f"configs/baselines/{m}_resnet-tiny_1xb128_fashion-mnist.py" for m in BASELINES),
    f"configs/snclr_{os.environ.get('RECIPE', 'resnet-tiny_1xb128_fashion-mnist')}.py",
]
#: What the evaluators of detectors and segmentors log: name -> (scalar, factor to
#: percent).
TRANSFER_METRICS = {
    "box AP": ("coco/bbox_mAP", 100),
    "mask AP": ("coco/segm_mAP", 100),
    "VOC AP": ("pascal_voc/mAP", 100),
    "mIoU": ("mIoU", 1),
}
RANDOM, PRETRAINED, HALF = ("random", "pretrained", "pretrained, half the steps")
#: What options set in the configs.
SET_BY = {
    "randomness.seed": "seeds",
    "train_cfg.max_epochs": "epochs",
    "train_dataloader.dataset.indices": "images",
    "val_cfg.bank_dataloader.dataset.indices": "images",
    "val_dataloader.dataset.indices": "holdout",
}
#: Options that say nothing where transfer is compared.
ONLY_PRETRAINING = (
    "epochs", "images", "holdout", "vary", "protocols", "per_class", "draws",
    "no_references",
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="compare.py [CONFIG ...] [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "configs",
        nargs="*",
        default=METHODS,
        help="pretraining configs; default: all methods on Fashion-MNIST, or in "
        "another setting with the variable RECIPE (see docs/methods.md)",
    )
    add("--pretrained", metavar="CHECKPOINT", help="compare transfer from this file")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--cfg-options", nargs="+", action=CfgOptions, default={}, help="for all runs")
    add(
        "--jobs",
        type=int,
        help="runs at the same time, which share the CPU cores and take a GPU each; "
        "default: the number of GPUs",
    )
    add("--work-dir", type=Path, help="default: comparison or transfer, in work_dirs/")

    add = parser.add_argument_group("pretraining").add_argument
    add("--epochs", type=int, help="default: the config's")
    add("--images", type=int, help="first images of the training set; default: all")
    text = "evaluate on the last training images, to choose without the test set"
    add("--holdout", type=int, help=text)
    add(
        "--vary", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"),
        help="add each config with this key set to each value; may be repeated",
    )  # fmt: skip
    protocols = ["knn", "linear", "few-shot"]
    add("--protocols", nargs="+", default=protocols, metavar="NAME")
    add("--per-class", type=int, default=10, help="few-shot labels")
    add("--draws", type=int, default=20, help="of the few-shot labels")
    text = "leave out random weights and raw pixels"
    add("--no-references", action="store_true", help=text)
    args = parser.parse_args(argv)
    for name in ("epochs", "images", "holdout", "jobs", "per_class", "draws"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if any(len(values) < 2 for values in args.vary):
        parser.error("--vary needs a key and at least one value")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f"--seeds {args.seeds}: each seed once")
    for key in [*args.cfg_options, *(key for key, *_ in args.vary)]:
        name = SET_BY.get(key)
        if name and getattr(args, name):
            parser.error(f"{key} is what --{name} sets: give one of them")
    folder = "comparison"
    if args.pretrained:
        args.pretrained = str(Path(args.pretrained).resolve())
        if not Path(args.pretrained).is_file():
            parser.error(f"--pretrained: there is no checkpoint {args.pretrained}")
        for name in ONLY_PRETRAINING:
            if getattr(args, name) != parser.get_default(name):
                parser.error(
                    f"--{name.replace('_', '-')} does not go with --pretrained"
                )
        if len(args.configs) != 1:
            parser.error("--pretrained takes one config, of detection or segmentation")
        folder = f"transfer/{Path(args.configs[0]).stem}"
    elif args.holdout and not args.images:
        parser.error("--holdout needs --images, or the images held out are trained on")
    args.work_dir = (args.work_dir or Path("work_dirs", folder)).resolve()
    return args


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import snclr_mm  # noqa: F401  (first: it makes mmpretrain importable)

# isort: split
import torch
import yaml
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from mmpretrain.utils import register_all_modules

from snclr_mm.cli import (
    check_data_roots,
    clear_pretrained,
    dataloaders,
    find_config,
    merge_options,
    read_config,
    set_pretrained,
)
from snclr_mm.evaluation import comes_by_class, describe_images
from snclr_mm.visualization import plot_comparison, plot_transfer, read_metrics


class Arm(NamedTuple):
    """One row of the comparison: a config with some settings changed.

    ``reference`` is 'random' or 'pixels' where nothing is trained.
    """

    name: str
    config: str
    options: dict
    reference: str | None = None


class Run(NamedTuple):
    """One arm with one seed."""

    arm: Arm
    seed: int
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder.with_suffix(".py")

    def __str__(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


def list_arms(args: argparse.Namespace) -> list[Arm]:
    """References, the configs, and each with one setting changed as --vary asks."""
    if args.pretrained:
        return [Arm(name, args.configs[0], {}) for name in (RANDOM, PRETRAINED, HALF)]
    arms = []
    if not args.no_references:
        config = find_config(args.configs[0])
        arms = [Arm(name, config, {}, reference=name) for name in ("random", "pixels")]
    for path in args.configs:
        config = find_config(path)
        algorithm = Path(config).stem.split("_")[0]
        arms.append(Arm(algorithm, config, {}))
        for key, *values in args.vary:
            for value in values:
                name = f"{algorithm} {key.split('.')[-1]}={value}"
                arms.append(Arm(name, config, {key: yaml.safe_load(value)}))
    names = [arm.name for arm in arms]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SystemExit(f"Several rows would be named {sorted(twice)}.")
    return arms


def build_config(arm: Arm, seed: int, args: argparse.Namespace) -> Config:
    """The complete training config of a run."""
    cfg = read_config(arm.config)
    merge_options(cfg, {**args.cfg_options, **arm.options})
    if args.pretrained:
        set_start(cfg, arm, args.pretrained)
    else:
        set_budget(cfg, args)
    cfg.merge_from_dict({"randomness.seed": seed})
    return cfg


def set_budget(cfg: Config, args: argparse.Namespace) -> None:
    """Epochs and images of a pretraining."""
    for key in ("train_cfg.max_epochs", "val_cfg.bank_dataloader"):
        part, name = key.split(".")
        if name not in (cfg.get(part) or {}):
            raise SystemExit(
                f"{cfg.filename}: pretraining is compared by epochs and by kNN, but "
                f"there is no {key}."
            )
    if args.epochs:
        cfg.train_cfg.max_epochs = args.epochs
    # The curve needs few evaluations, and an interrupted run a recent checkpoint.
    quarter = max(1, cfg.train_cfg.max_epochs // 4)
    cfg.train_cfg.val_interval = quarter
    cfg.default_hooks.checkpoint.update(interval=quarter, max_keep_ckpts=1)
    training = cfg.val_cfg.bank_dataloader.dataset
    if args.holdout:
        # MMEngine counts negative indices from the end.
        cfg.val_dataloader.dataset = {**training, "indices": -args.holdout}
        cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    if args.images:
        cfg.train_dataloader.dataset.indices = args.images
        training.indices = args.images


def set_start(cfg: Config, arm: Arm, checkpoint: str) -> None:
    """Weights that a transfer starts from, and its number of steps."""
    if "max_iters" not in cfg.train_cfg:
        raise SystemExit(f"{arm.config}: train_cfg.max_iters is needed, not epochs.")
    if arm.name == RANDOM:
        clear_pretrained(cfg.model)
        return
    set_pretrained(cfg.model, checkpoint)
    # A checkpoint that was overwritten makes other runs.
    cfg.pretrained_sha256 = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    if arm.name == HALF:
        cfg.train_cfg.max_iters //= 2
        for scheduler in cfg.param_scheduler:
            if scheduler.type == "LinearLR":
                continue  # the warm-up stays
            scheduler.end = cfg.train_cfg.max_iters
            if "milestones" in scheduler:
                scheduler.milestones = [step // 2 for step in scheduler.milestones]


def list_runs(arms: list[Arm], args: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, each with its config written beside its folder."""
    runs = []
    for seed, arm in itertools.product(args.seeds, arms):
        if arm.reference == "pixels" and seed != args.seeds[0]:
            continue  # the same for each seed
        slug = re.sub(r"[^\w.=+-]+", "_", arm.name)
        run = Run(arm, seed, args.work_dir / slug / f"seed{seed}")
        text = build_config(arm, seed, args).pretty_text
        if run.config.exists() and run.config.read_text() != text:
            raise SystemExit(
                f"{run.folder} belongs to a run with other settings ({run.config}): "
                "choose another --work-dir, or remove both."
            )
        run.folder.mkdir(parents=True, exist_ok=True)
        run.config.write_text(text)
        runs.append(run)
    return runs


def check_data(cfg: Config, args: argparse.Namespace) -> dict[str, dict]:
    """Raise an error if there is no data, too little, or not that of the work_dir.

    Returns:
        dict[str, dict]: For data.json: what the images are, by config key.
    """
    check_data_roots(cfg)
    if args.pretrained:
        return {}
    register_all_modules()
    found = {}
    for key, loader in dataloaders(cfg, ("train", "val")).items():
        whole = loader.dataset
        if "indices" in whole:
            whole = {**whole, "indices": None}
        dataset = DATASETS.build(whole)
        found[f"{key}.dataset"] = describe_images(dataset, range(len(dataset)))
        if args.images and comes_by_class(dataset):
            raise SystemExit(
                f"--images {args.images}: {key}.dataset has its images class by class, "
                "and the first ones would be of few classes: leave --images and "
                "--holdout out."
            )
    size = found["val_cfg.bank_dataloader.dataset"]["images"]
    if (args.images or 0) + (args.holdout or 0) > size:
        raise SystemExit(
            f"--images {args.images} and --holdout {args.holdout} exceed the {size} "
            "images of the training set (val_cfg.bank_dataloader.dataset)."
        )
    file = args.work_dir / "data.json"
    before = json.loads(file.read_text()) if file.exists() else found
    changed = [key for key in found if before.get(key) != found[key]]
    if changed:
        raise SystemExit(
            f"{args.work_dir} was started with other images in {', '.join(changed)} "
            f"({file}, now {[found[key]['images'] for key in changed]} images): choose "
            "another --work-dir, take the same data, or remove the folder."
        )
    return found


def run_tool(name: str, options: Sequence, folder: Path, slot: int, jobs: int) -> None:
    """Run tools/NAME.py, logging to ``folder/NAME.log``.

    It is one of ``jobs`` that share the CPU cores; ``slot``, below ``jobs``, picks its
    GPU. Raises CalledProcessError, whose ``output`` is the log's path, if it fails.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = given.split(",") if given else [str(i) for i in range(count)]
        env["CUDA_VISIBLE_DEVICES"] = names[slot % count].strip()
    log = folder / f"{name}.log"
    command = [sys.executable, Path(__file__).with_name(f"{name}.py"), *options]
    command = [str(part) for part in command]
    with log.open("a") as file:
        code = subprocess.call(command, stdout=file, stderr=file, env=env)
    if code:
        raise subprocess.CalledProcessError(code, command, output=log)


def execute(runs: list[Run], args: argparse.Namespace) -> list[dict | None]:
    """Finish all runs, ``args.jobs`` at a time, in child processes.

    Returns:
        list[dict | None]: The metrics of each, or None where it failed.
    """
    slots, done = queue.SimpleQueue(), itertools.count(1)
    for slot in range(args.jobs):
        slots.put(slot)

    def finish(run: Run) -> dict | None:
        slot, start = slots.get(), time.time()

        def call(name: str, *options) -> None:
            run_tool(name, options, run.folder, slot, args.jobs)

        try:
            metrics, known = measure(run, args, call)
            text = ", ".join(f"{key} {value:.2f}" for key, value in metrics.items())
            text += " (finished before)" if known else ""
        except subprocess.CalledProcessError as error:
            metrics, text = None, f"FAILED, see {error.output}"
        finally:
            slots.put(slot)
        minutes = (time.time() - start) / 60
        print(
            f"[{next(done)}/{len(runs)}] {run}: {text}; {minutes:.1f} min", flush=True
        )
        return metrics

    with ThreadPoolExecutor(args.jobs) as pool:
        return list(pool.map(finish, runs))


def train(run: Run, call: Callable) -> bool:
    """Train to the end; returns whether that was done before."""
    finished = run.folder / "trained"
    known = finished.exists()
    if not known:
        call("train", run.config, "--work-dir", run.folder, "--resume")
        finished.touch()
    return known


def measure(run: Run, args: argparse.Namespace, call: Callable) -> tuple[dict, bool]:
    """Metrics of a run, and whether they were there before."""
    if args.pretrained:
        known = train(run, call)
        return {name: curve[-1][1] for name, curve in read_curves(run).items()}, known
    options = ["--protocols", *args.protocols, "--seed", run.seed]
    options += ["--per-class", args.per_class, "--draws", args.draws]
    result, asked = (
        run.folder / "evaluation.json",
        run.folder / "evaluation_options.txt",
    )
    # Another evaluation than asked for does not count.
    known = result.exists() and asked.exists() and asked.read_text() == str(options)
    if not known:
        checkpoint = run.arm.reference
        if checkpoint is None:
            train(run, call)
            checkpoint = (run.folder / "last_checkpoint").read_text().strip()
        result.unlink(missing_ok=True)  # evaluate.py would add to it
        call("evaluate", run.config, checkpoint, *options, "--out", result)
        asked.write_text(str(options))
    return json.loads(result.read_text())["summary"], known


def read_curves(run: Run) -> dict[str, list]:
    """What the evaluations of a transfer gave: metric -> [(step, percent)]."""
    scalars = read_metrics(run.folder)
    loop = Config.fromfile(run.config).train_cfg
    steps = [*range(loop.val_interval, loop.max_iters, loop.val_interval)]
    steps.append(loop.max_iters)
    curves = {}
    for name, (scalar, factor) in TRANSFER_METRICS.items():
        if scalar in scalars:
            values = scalars[scalar]
            if scalar.startswith("coco/"):  # logs nothing where nothing is detected
                values = dict.fromkeys(steps, 0.0) | values
            curves[name] = [(step, factor * values[step]) for step in steps]
    if not curves:
        text = f"{run.folder}: none of {list(TRANSFER_METRICS)} was logged"
        raise subprocess.CalledProcessError(1, "train", output=text)
    return curves


def summarize(arms: list[Arm], outcomes: list[tuple[Run, dict | None]]) -> dict:
    """Collect the values of each run; its metrics are None where it failed.

    Returns:
        dict: arm -> metric -> ``values`` (seed -> percent), ``mean``, ``std`` (over
        seeds; None for a single one).
    """
    summary = {arm.name: {} for arm in arms}
    for run, metrics in outcomes:
        for name, value in (metrics or {}).items():
            cell = summary[run.arm.name].setdefault(name, {"values": {}})
            cell["values"][run.seed] = value
    for cell in (cell for row in summary.values() for cell in row.values()):
        values = list(cell["values"].values())
        cell["mean"] = statistics.mean(values)
        cell["std"] = statistics.stdev(values) if len(values) > 1 else None
    return summary


def as_table(summary: dict) -> str:
    """Markdown: a row per arm, mean ± standard deviation over the seeds."""
    names = list(dict.fromkeys(name for row in summary.values() for name in row))
    lines = [["", *(f"{name} (%)" for name in names), "seeds"]]
    lines.append(["---"] * len(lines[0]))
    for arm, row in summary.items():
        cells = []
        for cell in map(row.get, names):
            spread = f" ± {cell['std']:.2f}" if cell and cell["std"] is not None else ""
            cells.append(f"{cell['mean']:.2f}{spread}" if cell else "failed")
        seeds = max((len(cell["values"]) for cell in row.values()), default=0)
        lines.append([arm, *cells, str(seeds)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def compare_speed(curves: dict) -> str:
    """When the checkpoint's curve passes what random weights end with.

    ``curves`` are arm -> metric -> seed -> [(step, percent)].
    """
    text = ""
    for metric, seeds in curves[RANDOM].items():
        end = statistics.mean(curve[-1][1] for curve in seeds.values())
        when = "never"
        for points in zip(*curves[PRETRAINED][metric].values(), strict=True):
            if statistics.mean(value for _, value in points) >= end:
                when = f"at step {points[0][0]}"
                break
        text += (
            f"\n{metric}: the mean curve from the checkpoint passes {end:.2f}, where "
            f"random weights end, {when}.\n"
        )
    return text


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    args.jobs = args.jobs or max(1, torch.cuda.device_count())
    arms = list_arms(args)
    data = check_data(build_config(arms[-1], args.seeds[0], args), args)
    runs = list_runs(arms, args)
    if data:
        (args.work_dir / "data.json").write_text(json.dumps(data, indent=2) + "\n")
    print(f"{len(runs)} runs, {args.jobs} at a time, in {args.work_dir}", flush=True)
    outcomes = list(zip(runs, execute(runs, args), strict=True))
    failed = [run for run, metrics in outcomes if metrics is None]

    summary = summarize(arms, outcomes)
    table = as_table(summary)
    settings = {**vars(args), "work_dir": str(args.work_dir)}
    report = {"settings": settings, "arms": summary}
    if len(failed) < len(runs):
        values = {
            arm: {name: list(cell["values"].values()) for name, cell in row.items()}
            for arm, row in summary.items()
        }
        plot_comparison(values, args.work_dir / "comparison.png")
    if args.pretrained and not failed:
        report["curves"] = curves = {arm.name: {} for arm in arms}
        for run in runs:
            for metric, curve in read_curves(run).items():
                curves[run.arm.name].setdefault(metric, {})[run.seed] = curve
        table += compare_speed(curves)
        plot_transfer(curves, args.work_dir / "curves.png")
    (args.work_dir / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.work_dir / "table.md").write_text(table)
    print(f"\n{table}\nAll in {args.work_dir}.")
    if failed:
        raise SystemExit(f"{len(failed)} runs failed; start again to repeat them.")
    return report


if __name__ == "__main__":
    main()
