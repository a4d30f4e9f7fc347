#!/usr/bin/env python
"""Convert a backbone's weights between libraries, and check the result.

IN is what tools/train.py wrote (--from mmpretrain, the default), a checkpoint of
facebookresearch/moco-v3 or of the SNCLR authors (--from moco-v3), or a backbone of timm
or torchvision, to go on pretraining from. The result is loaded into the target
library's own model; its features of a photograph must be the source's.
"""

import argparse
import hashlib
from pathlib import Path

TARGETS = ("mmpretrain", "mmdet", "mmseg", "torchvision", "timm", "detectron2")
TARGETS += ("safetensors",)
SOURCES = ("mmpretrain", "torchvision", "timm", "moco-v3")
BRANCHES = ("online", "momentum")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", metavar="IN", help="checkpoint, a file or URL")
    add("target", metavar="OUT", type=Path, help="file to write")
    add("--to", choices=TARGETS, required=True)
    add("--from", dest="source_format", choices=SOURCES, default="mmpretrain")
    add("--branch", choices=BRANCHES, default="online")
    add("--image-size", type=int, help="resize a ViT's position embedding (pixels)")
    add("--num-heads", type=int, help="of a ViT, where the checkpoint does not tell")
    add(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not compare features",
    )
    add("--verbose", action="store_true", help="list every tensor, not only counts")
    add(
        "--trust-checkpoint",
        dest="trust",
        action="store_true",
        help="load an IN that holds more than tensors and plain data; a pickle can run "
        "any code, so only for files whose source you trust",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

from snclr_mm.checkpoints import (
    Conversion,
    convert_checkpoint,
    summarize_dropped,
)


def describe(conversion: Conversion, verbose: bool) -> str:
    """What was kept, renamed and dropped, as text."""
    shown = list(conversion.renamed.items())
    lines = [
        f"{conversion.architecture}: {len(shown)} tensors kept, "
        f"{sum(old != new for old, new in shown)} of them renamed"
    ]
    for old, new in shown if verbose else shown[:2]:
        lines.append(f"  {old} -> {new}")
    if len(shown) > 2 and not verbose:
        lines.append("  ...")
    for what, names in (
        ("dropped", conversion.dropped),
        ("without a place in the target", conversion.lost),
    ):
        counts = ", ".join(f"{k} ({n})" for k, n in summarize_dropped(names).items())
        lines.append(f"{len(names)} tensors {what}{': ' if names else ''}{counts}")
        lines += [f"  {name}" for name in names if verbose]
    if conversion.difference is None:
        lines.append("NOT verified (--no-verify)")
    else:
        lines.append(
            f"verified: largest difference of a feature {conversion.difference:.2g}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> Conversion:
    options = vars(parse_args(argv))
    verbose = options.pop("verbose")
    try:
        conversion = convert_checkpoint(**options)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"Error: {error}") from None
    print(describe(conversion, verbose))
    content = options["target"].read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    print(f"{options['target']}: {len(content) / 1e6:.2f} MB, SHA-256 {digest}")
    print(f"Use it as: {conversion.usage}")
    return conversion


if __name__ == "__main__":
    main()
