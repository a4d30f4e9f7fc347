#!/usr/bin/env python
"""Write a Markdown report of what the benchmarks found, and which targets are met.

Reads the benchmarks' JSON files of a folder, any of which may be missing or unfinished,
and tests.log; writes report.md beside them, and prints the targets.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

WAYS = {
    "authors": "(a) authors' way", "direct": "(b) direct way",
    "lightly": "(c) lightly, K = 1", "snclr_mm": "(d) snclr_mm",
}  # fmt: skip
# n, N, K, Q, d; at least so many times faster than (a) and (b); memory of (b) at most.
LOSS_TARGETS = {
    "cpu": ((256, 256, 30, 65536, 256), 2.5, 1.7, 1 / 3),
    "cuda": ((256, 4096, 30, 128000, 256), 20, 4, 1 / 10),
}
#: Name, function that gives the value or raises KeyError or ValueError where it was not
#: measured, bound, and whether that is an upper one.
Target = tuple[str, Callable[[], float], float, bool]


def flatten(row: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Column and text of each value; only pairs of numbers are shown of lists."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key} ")
        elif isinstance(value, list):
            if len(value) == 2:
                yield f"{prefix}{key}", " – ".join(f"{v:.4g}" for v in value)
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            yield f"{prefix}{key}", text


def table(rows: list[dict]) -> list[str]:
    """Lines of a Markdown table of what the rows hold, with an empty one behind."""
    cells = [dict(flatten(row)) for row in rows]
    columns = list(dict.fromkeys(key for row in cells for key in row))
    texts = [[row.get(column, "") for column in columns] for row in cells]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    return [
        f"| {' | '.join(map(str.ljust, line, widths))} |"
        for line in (columns, ["-" * width for width in widths], *texts)
    ] + [""]


def loss_lines(record: dict) -> list[str]:
    rows = [({k: row[k] for k in "nNKQd"}, row) for row in record["results"]]
    ways = [
        {**size, "way": WAYS[name], **way}
        for size, row in rows
        for name, way in row["ways"].items()
    ]
    agreement = [
        {**size, "compared with (b)": WAYS[name], **found}
        for size, row in rows
        for name, found in row["agreement"].items()
    ]
    return table(ways) + table(agreement)


def data_lines(record: dict) -> list[str]:
    sides = [
        {"name": case["name"], "pipeline": side, **case[side]}
        for case in record["results"]
        for side in ("MMCV", "gpu-aug")
    ]
    return table(sides)


def comm_lines(record: dict) -> list[str]:
    text = f"Computed, for {record['gbps']:g} Gbit/s per rank:"
    return [*table(record["results"]), text, "", *table(record["computed"])]


def result_lines(record: dict) -> list[str]:
    return table(record["results"])


def loss_targets(results: list[dict], device: str) -> list[Target]:
    base, authors, direct, memory = LOSS_TARGETS[device]
    rows = {tuple(row[k] for k in "nNKQd"): row["ways"] for row in results}
    few, many = ((*base[:2], K, *base[3:]) for K in (10, 100))

    def ours(size: tuple, key: str = "ms") -> float:
        return rows[size]["snclr_mm"][key]

    def growth(at: int) -> float:
        line = sorted(
            size
            for size in rows
            if (*size[:at], *size[at + 1 :]) == (*base[:at], *base[at + 1 :])
        )
        steps = pairwise(line)
        return max(ours(b) / ours(a) / (b[at] / a[at]) for a, b in steps)

    return [
        (f"loss step, {WAYS['authors']} / ours",
         lambda: rows[base]["authors"]["ratio"], authors, False),
        (f"loss step, {WAYS['direct']} / ours",
         lambda: rows[base]["direct"]["ratio"], direct, False),
        ("extra memory, ours / (b)",
         lambda: ours(base, "peak_mib") / rows[base]["direct"]["peak_mib"],
         memory, True),
        ("our time's growth / Q's, worst step", lambda: growth(3), 1, True),
        ("our time's growth / N's, worst step", lambda: growth(1), 1, True),
        ("our time, K = 100 / K = 10", lambda: ours(many) / ours(few), 1.2, True),
    ]  # fmt: skip


def step_targets(results: list[dict], device: str) -> list[Target]:
    ratios = {row["name"]: row["ratio"] for row in results}
    ours = "SNCLR, K = 30"
    options = [name for name in ratios if not name.startswith(("SNCLR", "MoCoV3"))]
    shipped = options[0] if options else "none"
    best = min(options, key=ratios.get, default="none")
    bounds = (1.01, 1.01, 1, 0.75) if device == "cuda" else (1.03, 1.03, 1.03, 1)
    return [
        ("whole step, K = 30 / K = 0",
         lambda: ratios[ours] / ratios["SNCLR, K = 0"], bounds[0], True),
        ("whole step, K = 30 / MoCoV3", lambda: ratios[ours], bounds[1], True),
        (f"whole step, as shipped ({shipped}) / MoCoV3", lambda: ratios[shipped],
         bounds[2], True),
        (f"whole step, best options ({best}) / MoCoV3", lambda: ratios[best],
         bounds[3], True),
    ]  # fmt: skip


def data_targets(results: list[dict], device: str) -> list[Target]:
    return [
        (f"images/s of {name}, {case['name']}",
         lambda case=case, key=key: case["gpu-aug"][key] / case["MMCV"][key], 3, False)
        for key, name in (("worker", "a worker core"), ("loader", "all workers"))
        for case in results or [{"name": "each data set"}]
    ]  # fmt: skip


def comm_targets(results: list[dict], device: str) -> list[Target]:
    ratios = [row["bytes_per_view"] / row["formula"]["snclr_mm"] for row in results]
    name = "bytes per rank and view / n(2d + 4K)"
    return [(name, lambda: max(ratios), 1.1, True)]


#: Title, function that makes the lines, function that names the targets.
PARTS = {
    "loss": ("Search, positiveness and loss", loss_lines, loss_targets),
    "loss_autocast": ("The same under autocast", loss_lines, None),
    "loss_clusters": ("The same, clustered features", loss_lines, None),
    "step": ("Whole step", result_lines, step_targets),
    "step_cudnn": ("Whole step, cuDNN's trials the other way", result_lines, None),
    "data": ("Images per second", data_lines, data_targets),
    "comm": ("Communication", comm_lines, comm_targets),
    "evaluation": ("Evaluation", result_lines, None),
}


def show(part: str, record: dict) -> None:
    """Print what a benchmark found."""
    print("", *PARTS[part][1](record), sep="\n")


def verdict(name: str, measure: Callable, bound: float, upper: bool) -> dict:
    """A row of the table of targets."""
    value = None
    with suppress(KeyError, ValueError):
        value = measure()
    met = value is not None and (value <= bound if upper else value >= bound)
    return {
        "target": name,
        "bound": f"at {'most' if upper else 'least'} {bound:.3g}x",
        "measured": "" if value is None else f"{value:.4g}x",
        "": "not measured" if value is None else "met" if met else "**missed**",
    }


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    files = {name: folder / f"{name}.json" for name in PARTS}
    records = {n: json.loads(f.read_text()) for n, f in files.items() if f.exists()}
    log, trained = folder / "tests.log", folder / "train.log"
    if not records and not log.exists() and not trained.exists():
        raise SystemExit(
            f"{folder} holds no benchmark's JSON, no tests.log and no train.log."
        )
    machine = next(iter(records.values()), {})
    known = ("gpu", "cpu", "cores", "threads", "torch", "cuda", "python")
    lines = ["# Benchmarks", ""]
    lines += [f"- {key}: {machine[key]}" for key in known if key in machine]
    pattern = r"^.*\b(?:passed|failed|error|skipped)\b.*$"
    ends = re.findall(pattern, log.read_text(), re.M) if log.exists() else ["not run"]
    lines.append(f"- GPU tests: {ends[-1].strip('= ') if ends else 'no result'}")
    if trained.exists():
        text = trained.read_text()
        accuracies = re.findall(r"knn/top1: ([\d.]+)", text)
        resumed = "resumed" if "resumed epoch" in text else "not interrupted"
        lines.append(f"- Training, {resumed}: kNN {', '.join(accuracies)} %")
    device = "cuda" if "gpu" in machine else "cpu"
    rows = [
        verdict(*target)
        for name, (_, _, targets) in PARTS.items()
        if targets
        for target in targets(records.get(name, {}).get("results", []), device)
    ]
    lines += ["", "## Targets", "", *table(rows)]
    print(*lines, sep="\n")
    for name, (title, part, _) in PARTS.items():
        lines += [f"## {title}", ""]
        if name in records:
            lines += [f"`{records[name]['command']}`", "", *part(records[name])]
        else:
            lines += ["**Not measured.**", ""]
    text = "\n".join(lines)
    (folder / "report.md").write_text(text)
    print(folder / "report.md")
    return text


if __name__ == "__main__":
    main()
