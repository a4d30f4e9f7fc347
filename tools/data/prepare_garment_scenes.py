#!/usr/bin/env python
"""Make small scenes with exact masks, for detection and segmentation.

Fashion-MNIST's garments, tinted and enlarged, lie on crops of photographs that
scikit-learn ships. Each garment and each part of a photograph is in one split only:
train scenes take Fashion-MNIST's training images, val scenes its test images. Writes
ROOT/{train,val}/*.png, ROOT/annotations/{train,val}.json (COCO) and
ROOT/semantic/{train,val}/*.png (0 is background, then the classes), and to pretrain on,
ROOT/unlabeled/*.png: one training garment each, large and on a plain color, as in a
catalog. The same seed gives the same files.
"""

import argparse
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("root", metavar="ROOT", nargs="?", default="data/garment-scenes", type=Path)
    add("--garments", default="data/fashion-mnist", type=Path)
    add("--train", type=int, default=500)
    add("--val", type=int, default=200)
    add("--unlabeled", type=int, default=10000)
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import snclr_mm  # noqa: F401  (first: it makes mmpretrain importable)

# isort: split
import cv2
import mmcv
import numpy as np
from coco import CocoFile, box_of, check_empty
from mmpretrain.datasets import FashionMNIST
from sklearn.datasets import load_sample_images

CLASSES = tuple(FashionMNIST.METAINFO["classes"])
SIDE = 128
GARMENTS = (3, 6)  # per scene
GARMENT_SIDE = (28, 64)
BLACK = 20  # of 255: Fashion-MNIST's background is noisy
SPECK = 0.1  # of the largest part's area
MIN_VISIBLE = 0.3  # of a garment's area, to be an instance


def prepare(
    root: Path,
    garments: Path,
    train: int = 500,
    val: int = 200,
    unlabeled: int = 10000,
    seed: int = 0,
) -> dict[str, CocoFile]:
    """Write the scenes into an empty folder; returns the annotations by split.

    Args:
        garments (Path): Fashion-MNIST's folder.
        train, val, unlabeled (int): Numbers of scenes and of pictures of one garment.
        seed (int): Of everything that is drawn.
    """
    if min(train, val) < 1 or unlabeled < 0:
        raise ValueError(
            f"--train {train} and --val {val} must be at least 1, and --unlabeled "
            f"{unlabeled} at least 0."
        )
    check_empty(root)
    if not (garments / "train-images-idx3-ubyte").exists():
        raise FileNotFoundError(
            f"There is no Fashion-MNIST in {garments}: run python "
            f"{Path(__file__).with_name('prepare_fashion_mnist.py')} {garments}"
        )
    files = {}
    material = {split: _material(garments, split) for split in ("train", "val")}
    for split, number in (("train", train), ("val", val)):
        data, photos = material[split]
        rng = np.random.default_rng([seed, split == "val"])
        files[split] = file = CocoFile(CLASSES)
        for i in range(number):
            scene, semantic, instances = compose(data, photos, rng)
            name = f"{i:05d}.png"
            _write(scene, root / split / name)
            mmcv.imwrite(semantic, str(root / "semantic" / split / name))
            file.add_image(name, SIDE, SIDE)
            for label, mask in instances:
                file.add_instance(label, box_of(mask), mask)
        file.write(root / "annotations" / f"{split}.json")

    data, _ = material["train"]
    rng = np.random.default_rng([seed, 2])
    for i in range(unlabeled):
        plain = np.full((64, 64, 3), rng.uniform(0, 255, 3))
        picture, _, _ = compose(data, [plain], rng, 64, (1, 1), garment_side=(48, 64))
        _write(picture, root / "unlabeled" / f"{i:05d}.png")
    return files


def compose(
    data: FashionMNIST,
    photos: list[np.ndarray],
    rng: np.random.Generator,
    side: int = SIDE,
    garments: tuple[int, int] = GARMENTS,
    garment_side: tuple[int, int] = GARMENT_SIDE,
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, np.ndarray]]]:
    """One scene of garments from ``data`` on a part of one of ``photos`` (RGB).

    Returns:
        tuple: The scene [side, side, 3] uint8 RGB; the semantic map [side, side]
        uint8; and the instances (label, visible mask), from back to front.
    """
    photo = photos[rng.integers(len(photos))]
    y, x = (rng.integers(length - side + 1) for length in photo.shape[:2])
    scene = photo[y : y + side, x : x + side].astype(np.float64)
    placed = []
    for _ in range(rng.integers(garments[0], garments[1] + 1)):
        item = data[int(rng.integers(len(data)))]
        size = int(rng.integers(garment_side[0], garment_side[1] + 1))
        image, mask = enlarge(item["img"], size)
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        # Up to a quarter may be outside.
        top, left = (int(rng.integers(-size // 4, side - 3 * size // 4)) for _ in "yx")
        canvas, where = np.zeros((side, side)), np.zeros((side, side), bool)
        rows = slice(max(top, 0), min(top + size, side))
        columns = slice(max(left, 0), min(left + size, side))
        part = np.s_[
            rows.start - top : rows.stop - top,
            columns.start - left : columns.stop - left,
        ]
        canvas[rows, columns], where[rows, columns] = image[part], mask[part]
        tint = rng.uniform(0.4, 1.0, 3)
        scene[where] = canvas[where, None] * tint
        for _, _, other in placed:
            other &= ~where
        placed.append((int(item["gt_label"]), int(mask.sum()), where))

    semantic = np.zeros((side, side), np.uint8)
    for label, _, visible in placed:
        semantic[visible] = label + 1
    instances = [
        (label, visible)
        for label, area, visible in placed
        if visible.any() and visible.sum() >= MIN_VISIBLE * area
    ]
    return scene.round().astype(np.uint8), semantic, instances


def enlarge(garment: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize a garment (28 x 28, uint8, on black), and find its silhouette.

    Returns:
        tuple[np.ndarray, np.ndarray]: Brightness [side, side], float in 0 to 255, and
        mask [side, side], bool: the outlines of what is not nearly black, holes filled,
        without specks.
    """
    garment = np.ascontiguousarray(garment.reshape(28, 28))
    outlines, _ = cv2.findContours(
        (garment > BLACK).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    parts = []
    for i in range(len(outlines)):
        part = np.zeros((28, 28), np.float32)
        parts.append(cv2.drawContours(part, outlines, i, 1.0, thickness=cv2.FILLED))
    largest = max((part.sum() for part in parts), default=0)
    solid = sum((p for p in parts if p.sum() >= SPECK * largest), np.zeros((28, 28)))
    image = cv2.resize(garment.astype(np.float32), (side, side))
    mask = cv2.resize(solid, (side, side)) > 0.5
    return image, mask


def _material(folder: Path, split: str) -> tuple[FashionMNIST, list[np.ndarray]]:
    test = split == "val"
    part = "test" if test else "train"
    garments = FashionMNIST(str(folder), split=part, test_mode=test)
    photos = load_sample_images().images
    return garments, [np.array_split(photo, 2, axis=1)[test] for photo in photos]


def _write(picture: np.ndarray, path: Path) -> None:
    mmcv.imwrite(picture[..., ::-1].copy(), str(path))


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        files = prepare(**vars(args))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"Error: {error}") from None
    for split, file in files.items():
        print(f"{split}: {len(file.images)} images, {len(file.annotations)} garments")


if __name__ == "__main__":
    main()
