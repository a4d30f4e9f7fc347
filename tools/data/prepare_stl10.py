#!/usr/bin/env python
"""Make image folders of STL-10's binary files, where configs/small_images reads them.

Unpack https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz first. Writes
ROOT/unlabeled/, ROOT/train/CLASS/ and ROOT/test/CLASS/: 113,000 PNG files of 96 pixels.
"""

import argparse
import sys
from pathlib import Path

import mmcv
import numpy as np
from mmengine.utils import track_iter_progress

SIDE = 96


def prepare(source: Path, root: Path) -> dict[str, int]:
    """Write every image of the binary files as PNG.

    Args:
        source (Path): Folder with STL-10's ``*_X.bin``, ``*_y.bin`` and
            ``class_names.txt``.
        root (Path): Folder, made if it does not exist.

    Returns:
        dict[str, int]: Number of images per split.

    Raises:
        FileNotFoundError: If a file is missing, naming it.
        ValueError: If a file does not hold whole images, or not a label for each.
    """
    classes = _existing(source / "class_names.txt").read_text().split()
    images = {split: _images(source, split) for split in ("unlabeled", "train", "test")}
    labels = {split: _labels(source, split, images, classes) for split in images}
    for split in images:
        print(f"{split}: {len(images[split])} images")
        pairs = list(zip(images[split], labels[split], strict=True))
        for i, (image, label) in enumerate(track_iter_progress(pairs)):
            # Stored channel by channel and column by column, in RGB.
            bgr = np.ascontiguousarray(image.transpose(2, 1, 0)[..., ::-1])
            mmcv.imwrite(bgr, str(root / split / label / f"{i:06d}.png"))
    return {split: len(part) for split, part in images.items()}


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: unpack stl10_binary.tar.gz and give its folder."
        )
    return path


def _images(source: Path, split: str) -> np.ndarray:
    path = _existing(source / f"{split}_X.bin")
    pixels = np.memmap(path, np.uint8, mode="r")
    if len(pixels) % (3 * SIDE * SIDE):
        raise ValueError(
            f"{path} has {len(pixels)} bytes, not a multiple of {3 * SIDE * SIDE}: "
            "unpack it again."
        )
    return pixels.reshape(-1, 3, SIDE, SIDE)


def _labels(source: Path, split: str, images: dict, classes: list[str]) -> list[str]:
    if split == "unlabeled":
        return [""] * len(images[split])
    path = _existing(source / f"{split}_y.bin")
    labels = np.fromfile(path, np.uint8)  # from 1
    if len(labels) != len(images[split]) or not (
        np.isin(labels, np.arange(1, len(classes) + 1)).all()
    ):
        raise ValueError(
            f"{path} must hold {len(images[split])} labels from 1 to {len(classes)}: "
            "unpack it again."
        )
    return [classes[label - 1] for label in labels]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the unpacked folder stl10_binary")
    parser.add_argument("root", nargs="?", default="data/stl10", type=Path)
    args = parser.parse_args(argv)
    try:
        prepare(args.source, args.root)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"STL-10 is in {args.root}.")


if __name__ == "__main__":
    main()
