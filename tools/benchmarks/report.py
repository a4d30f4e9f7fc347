#!/usr/bin/env python
"""Write a Markdown report of what the benchmarks found, and which targets are met.

Reads the benchmarks' JSON files of a folder, any of which may be missing or unfinished,
and tests.log; writes report.md beside them, and prints the targets.
"""

import argparse
import json
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

WAYS = {
    "authors": "(a) authors' way", "direct": "(b) direct way",
    "lightly": "(c) lightly, K = 1", "snclr_mm": "(d) snclr_mm",
}  # fmt: skip
# n, N, K, Q, d; at least so many times faster than (a) and (b); memory of (b) at most.
LOSS_TARGETS = {
    "cpu": ((256, 256, 30, 65536, 256), 6, 2, 1 / 3),
    "cuda": ((256, 4096, 30, 128000, 256), 20, 4, 1 / 10),
}
#: Name, function that gives the value or raises KeyError or ValueError where it was not
#: measured, bound, and whether that is an upper one.
Target = tuple[str, Callable[[], float], float, bool]

# Tables: header and format of each column.
TIME = {
    "ms": "{ms:.2f}",
    "quartiles": "{quartiles_ms[0]:.2f} – {quartiles_ms[1]:.2f}",
}
LOSS = {k: f"{{{k}}}" for k in ("n", "N", "K", "Q", "d")} | {
    "way": "{way}", **TIME, "/ ours": "{ratio:.2f}", "extra MiB": "{peak_mib:.1f}",
}  # fmt: skip
STEP = {
    "model": "{name}", **TIME, "/ MoCoV3": "{ratio:.3f}", "GiB": "{memory_gib:.2f}",
}  # fmt: skip
DATA = {
    "images/s": "{name}", "side": "{side}", "worker core": "{worker:.0f}",
    "device": "{device:.0f}", "one core for both": "{both:.0f}",
    "all workers": "{loader:.0f}", "worker cores for a GPU": "{cores}",
}  # fmt: skip
DECODERS = {
    "JPEG decoder": "{name}", "images/s of a core": "{rate:.0f}",
    "largest difference from OpenCV's pixels": "{difference}",
}  # fmt: skip
EXCHANGE = {k: f"{{{k}}}" for k in ("ranks", "n", "K", "d")}
EXCHANGE_MS = {"ms": "{ms[snclr_mm]:.2f}", "authors' ms": "{ms[authors]:.2f}"}
MEASURED = {
    **EXCHANGE, "bytes per rank and view": "{bytes_per_view:.0f}",
    "authors' bytes": "{formula[authors]}", **EXCHANGE_MS,
}  # fmt: skip
COMPUTED = {
    **EXCHANGE, "MB received in a step": "{received_mb[snclr_mm]:.1f}",
    "authors' MB": "{received_mb[authors]:.1f}", **EXCHANGE_MS,
}  # fmt: skip
EVALUATION = {
    "method": "{name}", "accuracy": "{accuracy:.2f}", "seconds": "{seconds:.2f}",
    "scikit-learn's": "{sklearn_accuracy:.2f}", "its seconds": "{sklearn_seconds:.2f}",
    "ratio": "{ratio:.1f}",
}  # fmt: skip


def table(columns: dict[str, str], rows: list[dict]) -> list[str]:
    """Lines of a Markdown table with an empty one behind; what is missing is empty."""

    def cell(column: str, row: dict) -> str:
        with suppress(KeyError, TypeError):
            return column.format_map(row)
        return ""

    cells = [[cell(column, row) for column in columns.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    return [
        f"| {' | '.join(map(str.ljust, line, widths))} |"
        for line in (columns, ["-" * width for width in widths], *cells)
    ] + [""]


def loss_lines(record: dict) -> list[str]:
    rows = [
        {**row, **way, "way": WAYS[name]}
        for row in record["results"]
        for name, way in row["ways"].items()
    ]
    lines = table(LOSS, rows)
    found = [way for row in record["results"] for way in row["agreement"].values()]
    if found:
        most = {key: max(way[key] for way in found) for key in ("error", "gap")}
        lines += [
            f"Loss and gradients agree with (b)'s within {most['error']:.1e}. "
            f"{sum(way['other_neighbors'] for way in found)} keys have other neighbors "
            f"than in (b), less similar by {most['gap']:.1e} at most."
            + ("" if all(way["agrees"] for way in found) else " **That is too far.**"),
            "",
        ]
    return lines


def step_lines(record: dict) -> list[str]:
    return table(STEP, record["results"])


def data_lines(record: dict) -> list[str]:
    rows = [
        {**case[side], "name": case["name"], "side": side, "cores": ", ".join(
            f"{cores} ({step}/s)" for step, cores in case[side]["cores"].items()
        )}
        for case in record["results"]
        for side in ("MMCV", "gpu-aug")
    ]  # fmt: skip
    decoders = [dict(d, name=name) for name, d in record.get("decoders", {}).items()]
    return table(DATA, rows) + table(DECODERS, decoders)


def comm_lines(record: dict) -> list[str]:
    text = f"Computed, for {record['gbps']:g} Gbit/s per rank:"
    computed = table(COMPUTED, record["computed"])
    return [*table(MEASURED, record["results"]), text, "", *computed]


def evaluation_lines(record: dict) -> list[str]:
    return table(EVALUATION, record["results"])


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
    best = min(options, key=ratios.get, default="none")
    return [
        ("whole step, K = 30 / MoCoV3", lambda: ratios[ours], 1.03, True),
        ("whole step, K = 30 / K = 0",
         lambda: ratios[ours] / ratios["SNCLR, K = 0"], 1.03, True),
        (f"whole step, best options ({best}) / MoCoV3", lambda: ratios[best], 1, True),
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


PARTS = [
    ("loss", "Search, positiveness and loss", loss_lines, loss_targets),
    ("loss_autocast", "The same under autocast", loss_lines, None),
    ("loss_clusters", "The same, clustered features", loss_lines, None),
    ("step", "Whole step", step_lines, step_targets),
    ("data", "Data", data_lines, data_targets),
    ("comm", "Communication", comm_lines, comm_targets),
    ("evaluation", "Evaluation", evaluation_lines, None),
]


def verdict(name: str, measure: Callable, bound: float, upper: bool) -> dict:
    """A row of the table of targets."""
    row = {
        "name": name,
        "bound": f"at {'most' if upper else 'least'} {bound:.3g}x",
        "verdict": "not measured",
    }
    with suppress(KeyError, ValueError):
        value = measure()
        met = value <= bound if upper else value >= bound
        row |= {"value": f"{value:.3g}x", "verdict": "met" if met else "**missed**"}
    return row


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    files = {name: folder / f"{name}.json" for name, *_ in PARTS}
    records = {n: json.loads(f.read_text()) for n, f in files.items() if f.exists()}
    if not records:
        raise SystemExit(f"{folder} holds no benchmark's JSON.")
    machine = next(iter(records.values()))
    known = ("gpu", "cpu", "cores", "threads", "torch", "cuda", "python")
    lines = ["# Benchmarks", ""]
    lines += [f"- {key}: {machine[key]}" for key in known if key in machine]
    log = folder / "tests.log"
    pattern = r"^.*\b(?:passed|failed|error|skipped)\b.*$"
    ends = re.findall(pattern, log.read_text(), re.M) if log.exists() else ["not run"]
    lines.append(f"- GPU tests: {ends[-1].strip('= ') if ends else 'no result'}")
    device = "cuda" if "gpu" in machine else "cpu"
    rows = [
        verdict(*target)
        for name, _, _, targets in PARTS
        if targets
        for target in targets(records.get(name, {}).get("results", []), device)
    ]
    columns = dict(
        target="{name}", measured="{value}", bound="{bound}", is_it="{verdict}"
    )
    lines += ["", "## Targets", "", *table(columns, rows)]
    print(*lines, sep="\n")
    for name, title, part, _ in PARTS:
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
