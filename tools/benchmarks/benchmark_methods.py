#!/usr/bin/env python
"""Time a training step of each method on the small recipe, beside InfoNCE's.

A step is forward, backward, optimizer, momentum update and queue, in float32. Both
views are targets for all methods, and once more only one where the config has it so.
The models take turns in one process, on the same drawn images, with full queues of
drawn features. On a CPU the clock counts this process's own seconds, so that others
which share the machine disturb less. Prints a table in Markdown.
"""

import argparse
import time
from functools import partial

import report
import torch
from benchmark_step import CONFIGS, WRAPPERS, Step
from measuring import Record, interleave, make_parser, peak_bytes, summary
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import init_default_scope

SMALL = "resnet-tiny_1xb128_fashion-mnist.py"
INFO_NCE = "infonce"  # SNCLR without neighbors, which is MoCo v3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    methods = ["nnclr", "pnnclr", "nnbyol", "msf", "mnn", "ressl", "sce", "snclr"]
    parser = make_parser(
        __doc__,
        "benchmark_methods.json",
        methods=(methods, "beginnings of the configs' names"),
        k=(5, "neighbors"),
        batch=(128, "images, of which two views each"),
        iterations=(15, "timed steps of each"),
    )
    return parser.parse_args(argv)


def build_steps(args: argparse.Namespace) -> dict[str, Step]:
    """InfoNCE's step, then those of the methods."""
    steps = {}
    for method in (INFO_NCE, *args.methods):
        name = f"baselines/{method}" if method not in (INFO_NCE, "snclr") else "snclr"
        cfg = Config.fromfile(CONFIGS / f"{name}_{SMALL}")
        model = cfg.model.to_dict()
        model["head"]["num_neighbors"] = 0 if method == INFO_NCE else args.k
        wrapper = WRAPPERS[args.device, "fp32"]
        wrapper = dict(wrapper, optimizer=cfg.optim_wrapper.optimizer.to_dict())
        one_directional = model.pop("one_directional", False)
        steps[method] = Step(model, wrapper, args.device)
        if one_directional:
            model["one_directional"] = True
            steps[f"{method}, one direction"] = Step(model, wrapper, args.device)
    return steps


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    init_default_scope("mmpretrain")
    MMLogger.get_instance("benchmark_methods", log_level="ERROR")
    MessageHub.get_instance("benchmark_methods").update_info("max_iters", 10_000)
    steps = build_steps(args)
    views = list(torch.randn(2, args.batch, 3, 28, 28, device=args.device))
    functions = {name: partial(step.run, views) for name, step in steps.items()}
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    taken = interleave(functions, args.device, args.iterations, clock=clock)
    record = Record(args)
    for name, seconds in taken.items():
        row = {"name": name, **summary(seconds, taken[INFO_NCE])}
        row["peak_mb"] = peak_bytes(functions[name], args.device) / 1e6
        record.add(row)
    print(*report.table(record["results"]), sep="\n")
    return record


if __name__ == "__main__":
    main()
