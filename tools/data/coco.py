"""Write annotations as COCO's JSON, without pycocotools."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def encode_mask(mask: np.ndarray) -> dict:
    """Run lengths of a mask [H, W], COCO's uncompressed RLE.

    They are of runs down the columns, the first one of background.
    """
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff([0, *changes, len(flat)])
    return {"size": list(mask.shape), "counts": counts.tolist()}


def box_of(mask: np.ndarray) -> list[int]:
    """The box around a mask that is not empty: x, y, width, height in pixels."""
    return list(cv2.boundingRect(mask.astype(np.uint8)))


def check_empty(root: Path) -> None:
    """Raise ValueError if a folder holds anything, which would mix with new files."""
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty: remove it, or choose another ROOT.")


class CocoFile:
    """Collects images and instances, and writes them.

    Args:
        classes (Sequence[str]): Categories, numbered from 1.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]

    def add_image(self, file_name: str, height: int, width: int) -> None:
        """Add an image; instances that follow belong to it."""
        size = {"height": height, "width": width}
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": file_name, **size})

    def add_instance(
        self, label: int, box: Sequence[float], mask: np.ndarray | None = None
    ) -> None:
        """Add an instance to the last image.

        Args:
            label (int): Index into the classes.
            box (Sequence[float]): x, y, width, height in pixels.
            mask (np.ndarray, optional): [H, W], bool; the area is the mask's, or
                without one the box's.
        """
        area = box[2] * box[3] if mask is None else int(mask.sum())
        annotation = {
            "id": len(self.annotations) + 1,
            "image_id": self.images[-1]["id"],
            "category_id": label + 1,
            "bbox": list(box),
            "area": area,
            "iscrowd": 0,
        }
        if mask is not None:
            annotation["segmentation"] = encode_mask(mask)
        self.annotations.append(annotation)

    def write(self, path: Path) -> None:
        """Write the JSON; the folder is made if it does not exist."""
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = ("images", "annotations", "categories")
        path.write_text(json.dumps({name: getattr(self, name) for name in parts}))
