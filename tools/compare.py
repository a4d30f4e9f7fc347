#!/usr/bin/env python
"""Compare methods, or settings of a method, at one budget over several seeds.

Each run is one training (tools/train.py) and one evaluation (tools/evaluate.py) in a
folder of its own under --work-dir. Writes results.json, table.md and comparison.png.
An interrupted comparison goes on where it stopped when it is started again.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import torch
import yaml
from mmengine.config import Config, DictAction
from evaluate import REFERENCES
from mmpretrain.registry import DATASETS
from mmpretrain.utils import register_all_modules

from snclr_mm.cli import check_data_roots, find_config
from snclr_mm.visualization import plot_comparison

REPOSITORY = Path(__file__).parents[1]
SMALL = "resnet-tiny_1xb128_fashion-mnist.py"
METHODS = [
    f"configs/baselines/mocov3_{SMALL}",
    f"configs/baselines/swav_{SMALL}",
    f"configs/baselines/nnclr_{SMALL}",
    f"configs/snclr_{SMALL}",
]
RESULT = "evaluation.json"


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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="compare.py [CONFIG ...] [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "configs",
        nargs="*",
        default=METHODS,
        help="pretraining configs; default: the four methods on Fashion-MNIST",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="default: the config's")
    parser.add_argument(
        "--images", type=int, help="first images of the training set; default: all"
    )
    parser.add_argument(
        "--holdout",
        type=int,
        help="evaluate on the last so many images of the training set, to choose "
        "settings without the test set",
    )
    parser.add_argument(
        "--vary",
        nargs="+",
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="add each config with this key set to each value, the rest unchanged; may "
        "be repeated; needs one config",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, help="for every run"
    )
    parser.add_argument(
        "--protocols", nargs="+", default=["knn", "linear", "few-shot"], metavar="NAME"
    )
    parser.add_argument("--per-class", type=int, default=10, help="few-shot labels")
    parser.add_argument("--draws", type=int, default=20, help="of the few-shot labels")
    parser.add_argument(
        "--no-references",
        action="store_true",
        help="leave out random weights and raw pixels",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(1, torch.cuda.device_count()),
        help="runs at the same time; they share the CPU cores, and take a GPU each",
    )
    parser.add_argument(
        "--work-dir", type=Path, default=REPOSITORY / "work_dirs/comparison"
    )
    args = parser.parse_args(argv)
    for name in ("epochs", "images", "holdout", "jobs", "per_class", "draws"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if any(len(values) < 2 for values in args.vary):
        parser.error("--vary needs a key and at least one value")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f"--seeds {args.seeds}: each seed once")
    args.work_dir = args.work_dir.resolve()
    return args


def list_arms(args: argparse.Namespace) -> list[Arm]:
    """References, the configs, and each with one setting changed as --vary asks."""
    arms = []
    if not args.no_references:
        config = find_config(args.configs[0])
        arms = [Arm(name, config, {}, reference=name) for name in REFERENCES]
    for path in args.configs:
        config = find_config(path)
        algorithm = Path(config).stem.split("_")[0]
        arms.append(Arm(algorithm, config, {}))
        for key, *values in args.vary:
            for value in values:
                name = f"{algorithm} {key.split('.')[-1]}={value}"
                arms.append(Arm(name, config, {key: yaml.safe_load(value)}))
    names = [arm.name for arm in arms]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SystemExit(f"Several rows would be named {sorted(twice)}.")
    return arms


def build_config(arm: Arm, seed: int, args: argparse.Namespace) -> Config:
    """The complete training config of a run."""
    cfg = Config.fromfile(arm.config)
    cfg.merge_from_dict({**args.cfg_options, **arm.options})
    if args.epochs:
        cfg.train_cfg.max_epochs = args.epochs
    # The curve needs few evaluations, and an interrupted run a recent checkpoint.
    epochs = cfg.train_cfg.max_epochs
    cfg.train_cfg.val_interval = max(1, epochs // 4)
    cfg.default_hooks.checkpoint.update(interval=max(1, epochs // 4), max_keep_ckpts=1)
    cfg.merge_from_dict({"randomness.seed": seed})
    training = cfg.val_cfg.bank_dataloader.dataset
    if args.holdout:
        # MMEngine counts negative indices from the end.
        cfg.val_dataloader.dataset = {**training, "indices": -args.holdout}
        cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    if args.images:
        cfg.train_dataloader.dataset.indices = args.images
        training.indices = args.images
    return cfg


def list_runs(arms: list[Arm], args: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, each with its config written in its folder.

    Raises:
        SystemExit: If a folder holds a run with other settings.
    """
    runs = []
    for seed, arm in itertools.product(args.seeds, arms):
        if arm.reference == "pixels" and seed != args.seeds[0]:
            continue  # the same for each seed
        slug = re.sub(r"[^\w.=+-]+", "_", arm.name)
        run = Run(arm, seed, args.work_dir / slug / f"seed{seed}")
        claim(run.folder, run.config, build_config(arm, seed, args))
        runs.append(run)
    return runs


def claim(folder: Path, path: Path, cfg: Config) -> None:
    """Make the folder of a run, and write its config beside it.

    Args:
        folder (Path): In it MMEngine writes the config as it ran.
        path (Path): Of the config.
        cfg (Config): Complete.

    Raises:
        SystemExit: If they belong to a run with other settings.
    """
    text = cfg.pretty_text
    if path.exists() and path.read_text() != text:
        raise SystemExit(
            f"{folder} belongs to a run with other settings ({path}): choose another "
            "--work-dir, or remove both."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Executor:
    """Trains and evaluates runs in child processes.

    Args:
        args (argparse.Namespace): The command line.
        total (int): Number of runs, for the progress lines.
    """

    def __init__(self, args: argparse.Namespace, total: int) -> None:
        self.args = args
        self.total = total
        self.done = 0
        self.slots: SimpleQueue = SimpleQueue()
        for slot in range(args.jobs):
            self.slots.put(slot)

    def __call__(self, run: Run) -> dict | None:
        """Finish a run.

        Returns:
            dict | None: Its metrics, or None if it failed.
        """
        start = time.time()
        slot = self.slots.get()
        result = run.folder / RESULT
        # Another evaluation than asked for does not count.
        options = str(self._options(run))
        asked = run.folder / "evaluation_options.txt"
        known = result.exists() and asked.exists() and asked.read_text() == options
        try:
            if not known:
                if run.arm.reference is None:
                    self._train(run, slot)
                result.unlink(missing_ok=True)  # evaluate.py would add to it
                self._evaluate(run, slot)
                asked.write_text(options)
            metrics = json.loads(result.read_text())["summary"]
            text = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
            text += " (finished before)" if known else ""
        except subprocess.CalledProcessError as error:
            metrics, text = None, f"FAILED, see {error.output}"
        finally:
            self.slots.put(slot)
        self.done += 1
        minutes = (time.time() - start) / 60
        print(
            f"[{self.done}/{self.total}] {run}: {text}; {minutes:.1f} min", flush=True
        )
        return metrics

    def _train(self, run: Run, slot: int) -> None:
        finished = run.folder / "trained"
        if not finished.exists():
            options = [run.config, "--work-dir", run.folder, "--resume"]
            self._call(run, slot, "train", *options)
            finished.touch()

    def _evaluate(self, run: Run, slot: int) -> None:
        checkpoint = run.arm.reference
        if checkpoint is None:
            checkpoint = (run.folder / "last_checkpoint").read_text().strip()
        output = ["--out", run.folder / RESULT]
        options = [*self._options(run), *output]
        self._call(run, slot, "evaluate", run.config, checkpoint, *options)

    def _options(self, run: Run) -> list:
        options = ["--protocols", *self.args.protocols, "--seed", run.seed]
        options += ["--per-class", self.args.per_class, "--draws", self.args.draws]
        return options

    def _call(self, run: Run, slot: int, tool: str, *options) -> None:
        run_tool(tool, options, run.folder, slot, self.args.jobs)


def run_tool(name: str, options: Sequence, folder: Path, slot: int, jobs: int) -> None:
    """Run one of this project's tools, logging to ``folder/NAME.log``.

    Args:
        name (str): Of tools/NAME.py.
        options (Sequence): Of its command line.
        folder (Path): For the log.
        slot (int): Below ``jobs``; picks the GPU, where there are any.
        jobs (int): How many such processes share the CPU cores.

    Raises:
        subprocess.CalledProcessError: If it fails; its ``output`` is the log's path.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if torch.cuda.is_available():
        env["CUDA_VISIBLE_DEVICES"] = str(slot % torch.cuda.device_count())
    log = folder / f"{name}.log"
    script = REPOSITORY / "tools" / f"{name}.py"
    command = [sys.executable, str(script), *map(str, options)]
    with log.open("a") as file:
        code = subprocess.call(command, stdout=file, stderr=file, env=env)
    if code:
        raise subprocess.CalledProcessError(code, command, output=log)


def summarize(arms: list[Arm], outcomes: list[tuple[Run, dict | None]]) -> dict:
    """Collect values per seed, mean and spread by arm and metric.

    Args:
        arms (list[Arm]): In the order of the table.
        outcomes (list): Each run with its metrics, None where it failed.

    Returns:
        dict: arm -> metric -> ``values`` (seed -> percent), ``mean``, ``std`` (over
        seeds; None for a single one).
    """
    summary = {}
    for arm in arms:
        runs = {run.seed: m for run, m in outcomes if run.arm == arm and m}
        names = dict.fromkeys(name for metrics in runs.values() for name in metrics)
        summary[arm.name] = {}
        for name in names:
            values = {seed: metrics[name] for seed, metrics in runs.items()}
            numbers = list(values.values())
            summary[arm.name][name] = {
                "mean": statistics.mean(numbers),
                "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
                "values": values,
            }
    return summary


def as_table(summary: dict) -> str:
    """Markdown: a row per arm, mean ± standard deviation over the seeds."""
    names = list(dict.fromkeys(name for row in summary.values() for name in row))
    lines = [
        "| | " + " | ".join(f"{name} (%)" for name in names) + " | seeds |",
        "|---" * (len(names) + 2) + "|",
    ]
    for arm, row in summary.items():
        cells, seeds = [], 0
        for name in names:
            if name not in row:
                cells.append("failed")
                continue
            spread = row[name]["std"]
            spread = "" if spread is None else f" ± {spread:.2f}"
            cells.append(f"{row[name]['mean']:.2f}{spread}")
            seeds = len(row[name]["values"])
        lines.append(f"| {arm} | " + " | ".join(cells) + f" | {seeds} |")
    return "\n".join(lines) + "\n"


def check_split(config: str, args: argparse.Namespace) -> None:
    """Raise SystemExit if --images and --holdout do not fit the training set."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(args.cfg_options)
    check_data_roots(cfg)
    register_all_modules()
    size = len(DATASETS.build(cfg.val_cfg.bank_dataloader.dataset))
    if (args.images or 0) + (args.holdout or 0) > size:
        raise SystemExit(
            f"--images {args.images} and --holdout {args.holdout} exceed the {size} "
            "images of the training set (val_cfg.bank_dataloader.dataset)."
        )


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    arms = list_arms(args)
    check_split(arms[0].config, args)
    runs = list_runs(arms, args)
    execute = Executor(args, len(runs))
    print(f"{len(runs)} runs, {args.jobs} at a time, in {args.work_dir}", flush=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        outcomes = list(zip(runs, pool.map(execute, runs), strict=True))

    summary = summarize(arms, outcomes)
    table = as_table(summary)
    settings = {
        name: getattr(args, name)
        for name in (
            "epochs",
            "images",
            "holdout",
            "seeds",
            "protocols",
            "per_class",
            "draws",
        )
    }
    report = {"settings": settings, "arms": summary}
    (args.work_dir / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.work_dir / "table.md").write_text(table)
    plot_comparison(
        {
            arm: {name: list(cell["values"].values()) for name, cell in row.items()}
            for arm, row in summary.items()
        },
        args.work_dir / "comparison.png",
    )
    print(f"\n{table}")
    for name in ("results.json", "table.md", "comparison.png"):
        print(args.work_dir / name)
    failed = [run for run, metrics in outcomes if metrics is None]
    if failed:
        raise SystemExit(f"{len(failed)} runs failed; start again to repeat them.")
    return report


if __name__ == "__main__":
    main()
