#!/usr/bin/env python
"""Write a Markdown report of what the benchmarks found, and which targets are met.

Reads loss*.json, step.json, data.json and comm.json of a folder, any of which may be
missing, and tests.log; writes report.md beside them.
"""

import argparse
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

SIZES = "nNKQd"
WAYS = {
    "authors": "(a) authors' way", "direct": "(b) direct way",
    "lightly": "(c) lightly, K = 1", "snclr_mm": "(d) snclr_mm",
}  # fmt: skip
# n, N, K, Q, d; at least so many times faster than (a) and (b); memory of (b) at most.
LOSS_TARGETS = {
    "cpu": ((256, 256, 30, 65536, 256), 6, 2, 1 / 3),
    "cuda": ((256, 4096, 30, 128000, 256), 20, 4, 1 / 10),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    return parser.parse_args(argv)


def load(folder: Path, name: str) -> dict | None:
    file = folder / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def by_size(record: dict) -> dict[tuple, dict]:
    return {tuple(row[k] for k in SIZES): row for row in record["results"]}


def target(
    name: str, value: float, bound: float, at_most: bool, unit: str = ""
) -> list:
    """A row of the table of targets."""
    met = value <= bound if at_most else value >= bound
    word = "at most" if at_most else "at least"
    return [
        name,
        f"{value:.3g}{unit}",
        f"{word} {bound:.3g}{unit}",
        "met" if met else "**missed**",
    ]


def loss_targets(record: dict) -> Iterator[list]:
    rows = by_size(record)
    base, authors, direct, memory = LOSS_TARGETS[record["device"].split(":")[0]]
    ours = {size: row["ways"]["snclr_mm"] for size, row in rows.items()}
    ways = rows.get(base, {}).get("ways", {})
    for name, bound in (("authors", authors), ("direct", direct)):
        if name in ways:
            yield target(
                f"loss step, {WAYS[name]} / ours",
                ways[name]["ratio"],
                bound,
                False,
                "x",
            )
    if "direct" in ways:
        yield target(
            "extra memory, ours / (b)",
            ways["snclr_mm"]["peak_mib"] / ways["direct"]["peak_mib"],
            memory,
            True,
        )
    for letter in "QN":
        at = SIZES.index(letter)
        line = sorted(
            size
            for size in ours
            if all(size[i] == base[i] for i in range(5) if i != at)
        )
        steps = [
            ours[b]["ms"] / ours[a]["ms"] / (b[at] / a[at]) for a, b in pairwise(line)
        ]
        if steps:
            name = f"our time's growth / {letter}'s, worst of {len(steps)} steps"
            yield target(name, max(steps), 1, True)
    few, many = ((*base[:2], K, *base[3:]) for K in (10, 100))
    if few in ours and many in ours:
        growth = ours[many]["ms"] / ours[few]["ms"]
        yield target("our time, K = 100 / K = 10", growth, 1.2, True, "x")


def step_targets(record: dict) -> Iterator[list]:
    ratios = {row["name"]: row["ratio"] for row in record["results"]}
    if "SNCLR, K = 30" in ratios:
        ratio = ratios["SNCLR, K = 30"]
        yield target("whole step, K = 30 / MoCoV3", ratio, 1.03, True, "x")
        if "SNCLR, K = 0" in ratios:
            ratio /= ratios["SNCLR, K = 0"]
            yield target("whole step, K = 30 / K = 0", ratio, 1.03, True, "x")
    options = [row for row in record["results"] if not row["name"].startswith("SNCLR")]
    best = min(options[1:], key=lambda row: row["ratio"], default=None)
    if best:
        name = f"whole step, best options ({best['name']}) / MoCoV3"
        yield target(name, best["ratio"], 1, True, "x")


def data_targets(record: dict) -> Iterator[list]:
    for case in record["cases"]:
        ratio = case["gpu-aug"]["worker"] / case["MMCV"]["worker"]
        yield target(f"images/s of a worker core, {case['name']}", ratio, 3, False, "x")
        if "loader" in case["gpu-aug"]:
            ratio = case["gpu-aug"]["loader"] / case["MMCV"]["loader"]
            yield target(
                f"images/s of {record['workers']} workers and device, {case['name']}",
                ratio, 3, False, "x",
            )  # fmt: skip


def comm_targets(record: dict) -> Iterator[list]:
    worst = max(
        r["bytes_per_view"] / r["formula"]["snclr_mm"] for r in record["measured"]
    )
    yield target("bytes per rank and view / n(2d + 4K)", worst, 1.1, True, "x")


def loss_lines(record: dict) -> list[str]:
    rows = []
    for row in record["results"]:
        for name, way in row["ways"].items():
            low, high = way["quartiles_ms"]
            rows.append(
                [*(f"{row[k]}" for k in SIZES), WAYS.get(name, f"(d) {name}"),
                 f"{way['ms']:.2f}", f"{low:.2f} – {high:.2f}", f"{way['ratio']:.2f}",
                 f"{way['peak_mib']:.1f}"]
            )  # fmt: skip
    setting = f"{record['features']} features, {record['projection']} f_1 and f_2"
    if record["autocast"]:
        setting += f", autocast to {record['autocast']}"
    header = [*SIZES, "", "ms", "quartiles", "/ ours", "extra MiB"]
    return [f"{setting}: `{record['command']}`", "", *table(header, rows)]


def step_lines(record: dict) -> list[str]:
    rows = []
    for row in record["results"]:
        low, high = row["quartiles_ms"]
        memory = f"{row['memory_gib']:.2f}" if row["memory_gib"] else ""
        given_up = "compile" in row["name"] and not row["compiled"]
        times = f"{row['ms']:.1f}", f"{low:.1f} – {high:.1f}"
        name = f"{row['name']} (not compiled)" if given_up else row["name"]
        rows.append([name, *times, f"{row['ratio']:.3f}", memory])
    text = (
        f"{record['backbone']}, {record['batch']} images of {record['image_size']} px, "
        f"{record['precision']}, Q = {record['queue_length']}, {record['threads']} "
        f"threads: `{record['command']}`"
    )
    return [text, "", *table(["", "ms", "quartiles", "/ MoCoV3", "GiB"], rows)]


def data_lines(record: dict) -> list[str]:
    rows = [
        [case["name"], side, *(f"{case[side][k]:.0f}" for k in ("worker", "device")),
         f"{case[side]['loader']:.0f}" if "loader" in case[side] else ""]
        for case in record["cases"]
        for side in ("MMCV", "gpu-aug")
    ]  # fmt: skip
    header = ["images/s", "", "worker core", "device", f"{record['workers']} workers"]
    return table(header, rows)


def comm_lines(record: dict) -> list[str]:
    rows = [
        [*(f"{row[k]}" for k in ("ranks", "n", "K", "d")),
         f"{row['bytes_per_view']:.0f}", f"{row['formula']['authors']}",
         f"{row['ms']['snclr_mm']:.2f}", f"{row['ms']['authors']:.2f}"]
        for row in record["measured"]
    ]  # fmt: skip
    header = ["ranks", "n", "K", "d", "bytes", "authors'", "ms", "authors'"]
    computed = [
        [*(f"{row[k]}" for k in ("ranks", "n", "K", "d")),
         *(f"{row['received_mb'][k]:.1f}" for k in ("snclr_mm", "authors")),
         *(f"{row['ms'][k]:.2f}" for k in ("snclr_mm", "authors"))]
        for row in record["computed"]
    ]  # fmt: skip
    return [
        "Per rank and view, gloo:", "", *table(header, rows),
        "Computed, MB that a rank receives in a step:", "",
        *table(["ranks", "n", "K", "d", "MB", "authors'", "ms", "authors'"], computed),
    ]  # fmt: skip


PARTS = [
    ("loss", "Search, positiveness and loss", loss_lines, loss_targets),
    ("loss_autocast", "The same under autocast", loss_lines, None),
    ("loss_clusters", "The same, clustered features", loss_lines, None),
    ("step", "Whole step", step_lines, step_targets),
    ("step_compile", "Whole step, compiled", step_lines, None),
    ("data", "Data", data_lines, data_targets),
    ("comm", "Communication", comm_lines, comm_targets),
]


def main(argv: list[str] | None = None) -> str:
    folder = parse_args(argv).folder
    records = {name: load(folder, name) for name, *_ in PARTS}
    if not any(records.values()):
        raise SystemExit(f"{folder} holds no benchmark's JSON.")
    machine = next(record for record in records.values() if record)
    known = ("gpu", "cpu", "cores", "threads", "torch", "cuda", "python")
    lines = ["# Benchmarks", ""]
    lines += [f"- {key}: {machine[key]}" for key in known if key in machine]
    log = folder / "tests.log"
    if log.exists():
        ends = re.findall(
            r"^.*\b(?:passed|failed|error|skipped)\b.*$", log.read_text(), re.M
        )
        lines.append(f"- GPU tests: {ends[-1].strip('= ') if ends else 'no result'}")
    goals = [
        row
        for name, _, _, targets in PARTS
        if records[name] and targets
        for row in targets(records[name])
    ]
    lines += ["", "## Targets", "", *table(["", "measured", "target", ""], goals)]
    for name, title, part, _ in PARTS:
        content = part(records[name]) if records[name] else ["**Not measured.**", ""]
        lines += [f"## {title}", "", *content]
    text = "\n".join(lines).rstrip() + "\n"
    (folder / "report.md").write_text(text)
    print(text)
    return text


if __name__ == "__main__":
    main()
