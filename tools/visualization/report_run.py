#!/usr/bin/env python
"""Write an HTML page of a training, or of several to compare them.

It shows what differs from the base config, the curves, results of evaluation, the
environment, and the command to repeat the run; also of a run that was interrupted or
still goes on. The page is one file and needs no network.
"""

import argparse
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("work_dirs", nargs="+", metavar="WORK_DIR", help="of tools/train.py")
    add("--out", type=Path, help="default: report.html in the first WORK_DIR")
    add(
        "--base",
        metavar="CONFIG",
        help="config to compare the runs' with (default: the installed one of the same "
        "name)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

from snclr_mm.visualization import write_run_report


def main(argv: list[str] | None = None) -> Path:
    args = parse_args(argv)
    out = args.out or Path(args.work_dirs[0]) / "report.html"
    try:
        write_run_report(args.work_dirs, out, args.base)
    except (ValueError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    return out


if __name__ == "__main__":
    main()
