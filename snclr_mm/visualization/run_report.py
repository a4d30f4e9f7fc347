"""What a training left in its work_dir, as a page."""

import ast
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from snclr_mm.checkpoints.config_text import literal, read_assignments
from snclr_mm.cli import read_config
from snclr_mm.registry import MIM

from .html_page import encode_picture, write_page
from .neighbors import evenly
from .scalars import read_records

MAX_POINTS = 400  # of a curve in the page
MAX_EVALUATIONS = 200  # rows of a run's table
MAX_PICTURES = 24  # of neighbors, in a page; at most 8 of a run, at least 1
PICTURE_EDGE = 1000  # pixels
SKIPPED = ("iter", "step")  # of scalars.json


def write_run_report(
    work_dirs: Sequence[str | Path], path: str | Path, base: str | None = None
) -> None:
    """Write an HTML page of one training, or of several to compare them.

    Args:
        work_dirs (Sequence[str | Path]): Of tools/train.py. Runs that were interrupted,
            still go on or were resumed are shown as far as they have logged.
        path (str | Path): File to write.
        base (str, optional): Config to compare theirs with. Defaults to None: for each
            the installed one of the same name.

    Raises:
        FileNotFoundError: If a work_dir or ``base`` does not exist.
        ValueError: If a work_dir holds neither a config nor a log.
    """
    runs, columns = [], {}
    for work_dir in map(Path, work_dirs):
        config_file, config = _read_saved_config(work_dir)
        logs = sorted(work_dir.glob("*/vis_data/scalars.json"))
        if config_file is None and not logs:
            raise ValueError(
                f"{work_dir} is not the work_dir of a training: it holds neither a "
                "config (*.py) nor a log (*/vis_data/scalars.json)."
            )
        name = str(work_dir)
        source = base or (config_file and _installed(config_file.name))
        if source and source not in columns:
            columns[source] = _flatten(read_config(source).to_dict())
        columns[name] = _flatten(config)
        environment = read_environment(work_dir)
        curves, notes, starts = read_curves(logs)
        if source is None:
            notes.append(
                "No installed config has the name of this run's, so nothing is there "
                "to compare it with: give one, --base CONFIG."
            )
        runs.append(
            {
                "name": name,
                "progress": _progress(work_dir, config, curves),
                "curves": {key: _thin(points) for key, points in curves.items()},
                "pictures": _read_pictures(starts, len(work_dirs), notes),
                "evaluations": _read_evaluations(work_dir, curves, notes),
                "environment": environment,
                "command": _command(work_dir, config_file, config, environment),
                "notes": notes,
            }
        )
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    rows = [[key, *(column.get(key) for column in columns.values())] for key in keys]
    settings = {
        "columns": list(columns),
        "rows": [row for row in rows if len(set(row[1:])) > 1],
    }
    write_page("run_report.html", {"runs": runs, "settings": settings}, path)


def read_curves(
    logs: Sequence[Path],
) -> tuple[dict[str, list], list[str], dict[Path, float]]:
    """Read all scalars of a run from the scalars.json of MMEngine.

    Args:
        logs (Sequence[Path]): In order; where a run was resumed, the later ones are
            believed.

    Returns:
        tuple: Scalar -> list of [iteration, value]; notes on what was wrong; and log ->
            the iteration it begins with, infinity if it has none.
    """
    curves: dict[str, list] = {}
    starts = dict.fromkeys(logs, math.inf)
    notes, iteration = [], 0
    for log in logs:
        records, damaged = read_records(log)
        for record in records:
            training = "iter" in record
            if training:
                iteration = record["iter"]
                if starts[log] == math.inf:  # what an interrupted run had done beyond
                    for points in curves.values():
                        points[:] = [p for p in points if p[0] < iteration]
                    starts[log] = iteration
            skipped = SKIPPED if training else (*SKIPPED, "time", "data_time", "epoch")
            for name, value in record.items():
                if isinstance(value, int | float) and name not in skipped:
                    curves.setdefault(name, []).append([iteration, value])
        if damaged:
            notes.append(
                f"{damaged} line(s) of {log} cannot be read and are left out; a "
                "process that is killed while it writes leaves such a line."
            )
    for name, points in curves.items():
        bad = [x for x, y in points if not math.isfinite(y)]
        if bad:
            notes.append(f"{name} is not finite from iteration {bad[0]} on.")
    return curves, notes, starts


def read_environment(work_dir: Path) -> dict[str, str]:
    """System and runtime of the last training in a work_dir, and its seed.

    That is the one of its start: what is drawn when a run is resumed is not used.
    """
    logs = sorted(Path(work_dir).glob("*/*.log"))
    logs = [log for log in logs if (log.parent / "vis_data/scalars.json").exists()]
    found = {}
    for log in logs:
        text = log.read_text(errors="replace")
        start = text.rfind("System environment:")
        block = text[start : text.find("\n----", start)] if start >= 0 else ""
        pairs = re.findall(r"^    ([\w ]+): (.*)$", block, re.MULTILINE)
        seed = {"seed": found["seed"]} if "seed" in found else {}
        found = {key: value for key, value in pairs if "compiling" not in key}
        if "resumed epoch" in text:
            found |= seed
    return found


def _read_saved_config(work_dir: Path) -> tuple[Path | None, dict]:
    """The config that MMEngine wrote, read as data: nothing in it is executed."""
    if not work_dir.is_dir():
        raise FileNotFoundError(f"There is no work_dir {str(work_dir)!r}.")
    files = sorted(work_dir.glob("*.py"), key=lambda file: file.stat().st_mtime)
    if not files:
        return None, {}
    try:
        values = read_assignments(files[-1].read_text(errors="replace"))
    except SyntaxError as error:
        raise ValueError(f"{files[-1]} is not a config: {error}.") from None
    return files[-1], {key: literal(node, ast.unparse) for key, node in values.items()}


def _flatten(node: Any, key: str = "") -> dict[str, str]:
    """Key of each setting -> its value; of lists of dicts by number."""
    if isinstance(node, tuple):
        node = list(node)
    items = None
    if isinstance(node, dict) and (node or not key):
        items = node.items()
    elif isinstance(node, list) and any(isinstance(item, dict | list) for item in node):
        items = enumerate(node)
    if items is None:
        return {key: repr(node)}
    flat = {}
    for name, value in items:
        if key or name not in ("work_dir", "launcher"):
            flat |= _flatten(value, f"{key}.{name}" if key else str(name))
    return flat


def _installed(name: str) -> str | None:
    files = sorted((MIM / "configs").rglob(name))
    return str(files[0].relative_to(MIM)) if files else None


def _thin(points: list) -> list:
    step = -(-len(points) // MAX_POINTS)
    return points[:: max(1, step)] + (points[-1:] if step > 1 else [])


def _progress(work_dir: Path, config: dict, curves: dict) -> list[list[str]]:
    loop = config.get("train_cfg")
    loop = loop if isinstance(loop, dict) else {}
    epochs, iterations = loop.get("max_epochs"), loop.get("max_iters")
    last = {name: points[-1] for name, points in curves.items() if points}
    file = work_dir / "last_checkpoint"
    checkpoint = Path(file.read_text().strip()).name if file.is_file() else ""
    ends = tuple(f"_{end}.pth" for end in (epochs, iterations) if end)
    done = checkpoint.endswith(ends) if ends else False
    times = curves.get("time", [])
    # `time` is the mean over the iterations since the last record.
    starts = [0, *(x for x, _ in times)]
    seconds = sum(y * (x - at) for (x, y), at in zip(times, starts, strict=False))
    if not curves:
        reached = "nothing was logged yet"
    else:
        reached = f"iteration {max(x for x, _ in last.values())}"
        reached += f" of {iterations}" if iterations else ""
        if epochs and "epoch" in last:
            reached += f", epoch {last['epoch'][1]} of {epochs}"
    return [
        ["state", "finished" if done else "not finished: interrupted, or still going"],
        ["logged up to", reached],
        ["last checkpoint", checkpoint or "none"],
        ["time in training steps", f"{seconds / 60:.1f} minutes"],
    ]


def _read_evaluations(work_dir: Path, curves: dict, notes: list[str]) -> list[list]:
    """Rows of source, metric and value: of validation, evaluate.py and test.py."""
    rows = []
    for name, points in curves.items():
        if re.search(r"/(?!.*loss)", name) and not name.startswith("diagnostics/"):
            finite = [y for _, y in points if math.isfinite(y)]
            if finite:
                rows.append(["validation, last", name, finite[-1]])
                rows.append(["validation, greatest", name, max(finite)])
    for file in sorted([*work_dir.glob("*.json"), *work_dir.glob("*/[0-9]*.json")]):
        try:
            record = json.loads(file.read_text())
            record = record.get("summary", record)
            flat = _flatten({k: v for k, v in record.items() if k != "settings"})
            rows += [
                [str(file.relative_to(work_dir)), key, float(value)]
                for key, value in flat.items()
                if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value)
            ]
        except (ValueError, AttributeError) as error:
            notes.append(f"{file} is not a table of results and is left out: {error}.")
    if len(rows) > MAX_EVALUATIONS:
        notes.append(f"Of {len(rows)} results the first {MAX_EVALUATIONS} are shown.")
    return rows[:MAX_EVALUATIONS]


def _read_pictures(
    starts: dict[Path, float], runs: int, notes: list[str]
) -> list[list]:
    """Iteration and picture, evenly spread, of those that NeighborImagesHook drew."""
    files: dict[int, Path] = {}
    for log, start in starts.items():
        # Not what an interrupted run had done beyond.
        files = {at: file for at, file in files.items() if at < start}
        for file in log.parent.glob("vis_image/neighbors_*.png"):
            iteration = file.stem.rpartition("_")[2]
            if iteration.isdecimal():
                files[int(iteration)] = file
    most = min(8, max(1, MAX_PICTURES // runs))
    pictures = []
    for iteration in [sorted(files)[row] for row in evenly(len(files), most)]:
        try:
            with Image.open(files[iteration]) as picture:
                pictures.append([iteration, encode_picture(picture, PICTURE_EDGE)])
        # A SyntaxError is Pillow's for a part without a name.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            notes.append(f"{files[iteration]} is no picture and is left out: {e}.")
    return pictures


def _command(work_dir: Path, file: Path | None, config: dict, found: dict) -> str:
    """The line that trains the same once more, in another folder."""
    if file is None:
        return ""
    options = []
    randomness = config.get("randomness")
    if (randomness or {}).get("seed") is None and found.get("seed"):
        options.append(f"randomness.seed={found['seed']}")
    if config.get("resume"):
        options += ["resume=False", "load_from=None"]
    command = ["python", "tools/train.py", str(file)]
    if found.get("Distributed launcher") == "pytorch":
        command = ["bash", "tools/dist_train.sh", str(file), found["GPU number"]]
    command += ["--work-dir", f"{work_dir}_again"]
    command += ["--cfg-options", *options] if options else []
    return " ".join(shlex.quote(part) for part in command)
