#!/usr/bin/env python
"""Compare transfer from a pretraining checkpoint with random weights, over seeds.

Each run is one tools/train.py with a detection or segmentation config that counts in
steps: from random weights, from the checkpoint, and from the checkpoint in half of the
steps (schedule and all). Writes results.json, table.md and curves.png. An interrupted
comparison goes on where it stopped when it is started again.
"""

import argparse
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import torch
from compare import REPOSITORY, claim, run_tool
from mmengine.config import Config, DictAction

from snclr_mm.cli import (
    check_data_roots,
    clear_pretrained,
    read_config,
    set_pretrained,
)
from snclr_mm.visualization import plot_transfer, read_metrics

#: What is compared, of what the evaluators log: name -> (scalar, factor to percent).
METRICS = {
    "box AP": ("coco/bbox_mAP", 100),
    "mask AP": ("coco/segm_mAP", 100),
    "VOC AP": ("pascal_voc/mAP", 100),
    "mIoU": ("mIoU", 1),
}
RANDOM, PRETRAINED, HALF = ARMS = ("random", "pretrained", "pretrained, half the steps")


class Run(NamedTuple):
    """One arm with one seed."""

    arm: str
    seed: int
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder.with_suffix(".py")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="detection or segmentation config")
    parser.add_argument("pretrained", help="pretraining checkpoint")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(1, torch.cuda.device_count()),
        help="runs at the same time; they share the CPU cores, and take a GPU each",
    )
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/transfer/...")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: must be at least 1")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f"--seeds {args.seeds}: each seed once")
    if args.work_dir is None:
        args.work_dir = REPOSITORY / "work_dirs/transfer" / Path(args.config).stem
    args.work_dir = args.work_dir.resolve()
    args.pretrained = Path(args.pretrained).resolve()
    if not args.pretrained.exists():
        parser.error(f"there is no checkpoint {args.pretrained}")
    args.sha256 = hashlib.sha256(args.pretrained.read_bytes()).hexdigest()
    args.pretrained = str(args.pretrained)
    return args


def build_config(arm: str, seed: int, args: argparse.Namespace) -> Config:
    """The complete config of a run.

    Raises:
        SystemExit: If the config counts in epochs.
    """
    cfg = read_config(args.config)
    cfg.merge_from_dict({**args.cfg_options, "randomness": {"seed": seed}})
    if "max_iters" not in cfg.train_cfg:
        raise SystemExit(f"{args.config}: train_cfg.max_iters is needed, not epochs.")
    if arm == RANDOM:
        clear_pretrained(cfg.model)
    else:
        set_pretrained(cfg.model, args.pretrained)
        # A checkpoint that was overwritten makes other runs.
        cfg.pretrained_sha256 = args.sha256
    if arm == HALF:
        cfg.train_cfg.max_iters //= 2
        for scheduler in cfg.param_scheduler:
            if scheduler.type == "LinearLR":
                continue  # the warm-up stays
            scheduler.end = cfg.train_cfg.max_iters
            if "milestones" in scheduler:
                scheduler.milestones = [step // 2 for step in scheduler.milestones]
    return cfg


def list_runs(args: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, each with its config written beside its folder.

    Raises:
        SystemExit: If a folder holds a run with other settings.
    """
    runs = []
    for seed, arm in itertools.product(args.seeds, ARMS):
        run = Run(arm, seed, args.work_dir / arm.replace(", ", "_") / f"seed{seed}")
        claim(run.folder, run.config, build_config(arm, seed, args))
        runs.append(run)
    return runs


def train(run: Run, slots: SimpleQueue, jobs: int) -> dict[str, list]:
    """Finish a run, and read its curves: metric -> [(step, percent)]."""
    start, slot = time.time(), slots.get()
    finished = run.folder / "trained"
    try:
        if not finished.exists():
            options = [run.config, "--work-dir", run.folder, "--resume"]
            run_tool("train", options, run.folder, slot, jobs)
            finished.touch()
    except subprocess.CalledProcessError as error:
        print(f"{run.arm}, seed {run.seed}: FAILED, see {error.output}", flush=True)
        return {}
    finally:
        slots.put(slot)
    scalars = read_metrics(run.folder)
    loop = Config.fromfile(run.config).train_cfg
    steps = [*range(loop.val_interval, loop.max_iters, loop.val_interval)]
    steps.append(loop.max_iters)
    curves = {}
    for name, (scalar, factor) in METRICS.items():
        if scalar in scalars:
            values = scalars[scalar]
            if scalar.startswith("coco/"):  # logs nothing where nothing is detected
                values = dict.fromkeys(steps, 0.0) | values
            curves[name] = [(step, factor * values[step]) for step in steps]
    if not curves:
        print(f"{run.arm}, seed {run.seed}: FAILED, none of {METRICS} was logged")
        return {}
    text = ", ".join(f"{name} {curve[-1][1]:.2f}" for name, curve in curves.items())
    minutes = (time.time() - start) / 60
    print(f"{run.arm}, seed {run.seed}: {text}; {minutes:.1f} min", flush=True)
    return curves


def as_table(curves: dict) -> str:
    """Markdown: the last values, and when the checkpoint's curve passes random's end.

    Args:
        curves (dict): arm -> metric -> seed -> [(step, percent)].
    """
    metrics = list(curves[RANDOM])
    lines = ["| | steps | " + " | ".join(f"{m} (%)" for m in metrics) + " |"]
    lines.append("|---" * (len(metrics) + 2) + "|")
    for arm, row in curves.items():
        steps = next(iter(row[metrics[0]].values()))[-1][0]
        cells = []
        for metric in metrics:
            ends = [curve[-1][1] for curve in row[metric].values()]
            spread = f" ± {statistics.stdev(ends):.2f}" if len(ends) > 1 else ""
            cells.append(f"{statistics.mean(ends):.2f}{spread}")
        lines.append(f"| {arm} | {steps} | " + " | ".join(cells) + " |")
    for metric in metrics:
        ends = [curve[-1][1] for curve in curves[RANDOM][metric].values()]
        passed = first_passing(curves[PRETRAINED][metric], statistics.mean(ends))
        lines.append(
            f"\n{metric}: the curve from the checkpoint passes the mean that random "
            f"weights end with {'never' if passed is None else f'at step {passed}'}."
        )
    return "\n".join(lines) + "\n"


def first_passing(curves: dict[int, list], level: float) -> int | None:
    """First step at which the mean over the seeds is at least ``level``."""
    for points in zip(*curves.values(), strict=True):
        if statistics.mean(value for _, value in points) >= level:
            return points[0][0]
    return None


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    runs = list_runs(args)
    check_data_roots(Config.fromfile(runs[0].config))
    slots: SimpleQueue = SimpleQueue()
    for slot in range(args.jobs):
        slots.put(slot)
    print(f"{len(runs)} runs, {args.jobs} at a time, in {args.work_dir}", flush=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        outcomes = list(pool.map(lambda run: train(run, slots, args.jobs), runs))
    if not all(outcomes):
        raise SystemExit("Some runs failed; start again to go on with them.")

    metrics = list(outcomes[0])
    curves = {
        arm: {
            metric: {
                run.seed: outcome[metric]
                for run, outcome in zip(runs, outcomes, strict=True)
                if run.arm == arm
            }
            for metric in metrics
        }
        for arm in ARMS
    }
    report = {
        "config": args.config,
        "pretrained": {"file": args.pretrained, "sha256": args.sha256},
        "seeds": args.seeds,
        "curves": curves,
    }
    table = as_table(curves)
    (args.work_dir / "results.json").write_text(json.dumps(report) + "\n")
    (args.work_dir / "table.md").write_text(table)
    plot_transfer(curves, args.work_dir / "curves.png")
    print(f"\n{table}")
    for name in ("results.json", "table.md", "curves.png"):
        print(args.work_dir / name)
    return report


if __name__ == "__main__":
    main()
