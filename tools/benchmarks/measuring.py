"""What the benchmarks share: fair timing, peak memory, and what ran where."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

PACKAGES = (
    "onedl-mmengine", "onedl-mmcv", "onedl-mmpretrain", "numpy", "opencv-python",
    "pillow", "lightly",
)  # fmt: skip


def default_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine(device: str) -> dict:
    """Hardware, versions and command, for the record."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [li for li in info.read_text().splitlines() if "model name" in li]
        cpu = names[0].split(":")[1].strip() if names else cpu
    record = {
        "command": " ".join(["python", *sys.argv]),
        "device": device,
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {},
    }
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            record["versions"][package] = importlib.metadata.version(package)
    if device.startswith("cuda"):
        record |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
        }
    return record


def synchronize(device: str) -> None:
    """Wait for a GPU; a CPU needs no waiting."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(
    function: Callable, device: str, clock: Callable = time.perf_counter
) -> float:
    """Time one call."""
    synchronize(device)
    start = clock()
    function()
    synchronize(device)
    return clock() - start


def interleave(
    functions: dict[str, Callable],
    device: str,
    rounds: int,
    warmup: int = 2,
    clock: Callable = time.perf_counter,
) -> dict[str, list[float]]:
    """Time functions in turn, A B C A B C ..., so that a drift meets all alike.

    Returns:
        dict[str, list[float]]: Seconds of each round.
    """
    taken = {name: [] for name in functions}
    for i in range(warmup + rounds):
        for name, function in functions.items():
            time_taken = seconds(function, device, clock)
            if i >= warmup:
                taken[name].append(time_taken)
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
    if device.startswith("cuda"):
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        synchronize(device)
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


def write(path: Path, record: dict) -> None:
    """Write the record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
