#!/usr/bin/env python
"""Make image folders of STL-10's binary files, where configs/small_images reads them.

Unpack https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz first. Writes
ROOT/unlabeled/, ROOT/train/CLASS/ and ROOT/test/CLASS/: 113,000 PNG files of 96 pixels.
"""

import argparse
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the unpacked folder stl10_binary")
    parser.add_argument("root", nargs="?", default="data/stl10", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import snclr_mm  # noqa: F401  (first: it makes torchvision importable)

# isort: split
import mmcv
import numpy as np
from mmengine.utils import track_iter_progress
from torchvision.datasets import STL10


def prepare(source: Path, root: Path) -> None:
    """Write every image of the binary files as PNG.

    Args:
        source (Path): The unpacked folder stl10_binary; torchvision reads it.
        root (Path): Folder, made if it does not exist.

    Raises:
        RuntimeError: If a file is missing, or not the published one.
    """
    for split in ("unlabeled", "train", "test"):
        data = STL10(str(source.resolve().parent), split)
        print(f"{split}: {len(data)} images")
        pairs = list(zip(data.data, data.labels, strict=True))
        for i, (image, label) in enumerate(track_iter_progress(pairs)):
            folder = root / split / (data.classes[label] if label >= 0 else "")
            bgr = np.ascontiguousarray(image.transpose(1, 2, 0)[..., ::-1])
            mmcv.imwrite(bgr, str(folder / f"{i:06d}.png"))


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        prepare(args.source, args.root)
    except RuntimeError:
        raise SystemExit(
            f"{args.source} must be the folder stl10_binary with its files as they are "
            "published (their MD5 is checked): unpack stl10_binary.tar.gz again."
        ) from None
    print(f"STL-10 is in {args.root}.")


if __name__ == "__main__":
    main()
