"""What the benchmarks share: options, a full queue, fair timing and the record."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from snclr_mm.models import SoftNeighborHead

PACKAGES = (
    "onedl-mmengine", "onedl-mmcv", "onedl-mmpretrain", "numpy", "opencv-python",
    "pillow", "scikit-learn", "lightly",
)  # fmt: skip


def make_parser(description: str, out: str, **options) -> argparse.ArgumentParser:
    """A parser with --device, --out and options of the same form.

    Args:
        options (tuple): Default and help of each; a list takes several values.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device)
    parser.add_argument("--out", type=Path, default=out, help="JSON file to write")
    for name, (default, meaning) in options.items():
        flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        values = default if isinstance(default, list) else [default]
        nargs = "*" if isinstance(default, list) else None
        kind = type(values[0])
        parser.add_argument(flag, type=kind, nargs=nargs, default=default, help=meaning)
    return parser


class Record(dict):
    """Options, machine and results of a run, written to a file after every result."""

    def __init__(self, args: argparse.Namespace) -> None:
        options = {k: v for k, v in vars(args).items() if k not in ("out", "photos")}
        super().__init__(**options, **machine(args.device), results=[])
        self.out = args.out

    def add(self, row: dict) -> None:
        """Append a row to the results, and write the file."""
        self["results"].append(row)
        self.write()

    def write(self) -> None:
        """Write the file anew; an interruption leaves the old or the new one."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.out.with_name(f"{self.out.name}.tmp")
        unfinished.write_text(json.dumps(self, indent=2) + "\n")
        unfinished.replace(self.out)


def machine(device: str) -> dict:
    """Hardware, versions and command."""
    info = Path("/proc/cpuinfo")
    names = re.findall("model name.*: (.*)", info.read_text() if info.exists() else "")
    record = {
        "command": " ".join(["python", *sys.argv]),
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {
            package.name: package.version
            for package in importlib.metadata.distributions()
            if package.name in PACKAGES
        },
    }
    if device == "cuda":
        record["gpu"] = torch.cuda.get_device_name(device)
        record["cuda"] = torch.version.cuda
    return record


def make_head(
    rows: Tensor, num_neighbors: int, projection: str, temperature: float = 0.2
) -> SoftNeighborHead:
    """A head without predictor on the rows' device, its queue full of ``rows``."""
    torch.manual_seed(0)
    length, dim = rows.shape
    head = SoftNeighborHead(
        predictor=None,
        queue=dict(type="NeighborQueue", length=length, dim=dim),
        attention=dict(
            type="CrossAttentionNeck", in_channels=dim, projection=projection
        ),
        num_neighbors=num_neighbors,
        temperature=temperature,
    ).to(rows.device)
    head.queue.enqueue(rows)
    return head


def timed(
    function: Callable, device: str, clock: Callable[[], float] = time.perf_counter
) -> tuple:
    """Seconds of one call, and what it returns."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = clock()
    result = function()
    synchronize()
    return clock() - start, result


def interleave(
    functions: dict[str, Callable],
    device: str,
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    before: Callable[[], None] = lambda: None,
    after_round: Callable[[dict], None] = lambda taken: None,
) -> dict[str, list[float]]:
    """Time functions in turn, A B C B C A ..., so that a drift meets all alike.

    ``before`` is called before each of them, and ``after_round`` with the seconds of
    all timed rounds so far, which are returned as well.
    """
    taken = {name: [] for name in functions}
    order = list(functions)
    for i in range(warmup + rounds):
        for name in order:
            before()
            seconds, _ = timed(functions[name], device, clock)
            if i >= warmup:
                taken[name].append(seconds)
        order = order[1:] + order[:1]
        if i >= warmup:
            after_round(taken)
    return taken


def summary(taken: list[float], reference: list[float] | None = None) -> dict:
    """Median and quartiles in ms, and the median ratio to another's same rounds."""
    quarters = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
    row = {
        "ms": 1e3 * statistics.median(taken),
        "quartiles_ms": [1e3 * quarters[0], 1e3 * quarters[2]],
    }
    if reference is not None:
        ratios = [a / b for a, b in zip(taken, reference, strict=True)]
        row["ratio"] = statistics.median(ratios)
    return row


def peak_bytes(function: Callable, device: str) -> int:
    """Most memory that tensors took at once while ``function`` ran, beyond before.

    On a CPU from the allocator's events, so without the libraries' scratch space.
    """
    if device == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    now = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        now += change
        peak = max(peak, now)
    return peak
