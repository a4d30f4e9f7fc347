import json

import numpy as np
import pytest
from helpers.command import load_tool

coco = load_tool("data/coco.py")


def decode(rle):
    """COCO's definition: run after run, first background, down the columns."""
    flat, value = [], False
    for count in rle["counts"]:
        flat += [value] * count
        value = not value
    return np.array(flat, bool).reshape(rle["size"], order="F")


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((3, 4), bool),
        np.ones((3, 4), bool),
        np.eye(5, dtype=bool),
        np.random.default_rng(0).random((7, 9)) < 0.5,
        np.arange(6).reshape(2, 3) == 0,
    ],
)
def test_encode_mask(mask):
    rle = coco.encode_mask(mask)
    assert np.array_equal(decode(rle), mask)
    assert sum(rle["counts"]) == mask.size
    assert all(count > 0 for count in rle["counts"][1:])
    json.dumps(rle)


def test_as_pycocotools_reads_it():
    tools = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((7, 9)) < 0.5
    rle = tools.frPyObjects(coco.encode_mask(mask), 7, 9)
    assert np.array_equal(tools.decode(rle).astype(bool), mask)
    assert tools.toBbox(rle).tolist() == coco.box_of(mask)


def test_box_of():
    mask = np.zeros((10, 12), bool)
    mask[3, 5] = mask[7, 6] = True
    assert coco.box_of(mask) == [5, 3, 2, 5]


def test_file(tmp_path):
    file = coco.CocoFile(["shirt", "shoe"])
    mask = np.eye(4, dtype=bool)
    file.add_image("a.png", 4, 4)
    file.add_instance(1, coco.box_of(mask), mask)
    file.add_image("b.png", 4, 4)
    file.add_instance(0, [0, 1, 2, 3])
    file.write(tmp_path / "new/file.json")
    data = json.loads((tmp_path / "new/file.json").read_text())
    assert data["categories"] == [
        {"id": 1, "name": "shirt"},
        {"id": 2, "name": "shoe"},
    ]
    first, second = data["annotations"]
    assert (first["image_id"], first["category_id"], first["area"]) == (1, 2, 4)
    assert np.array_equal(decode(first["segmentation"]), mask)
    assert (second["image_id"], second["category_id"], second["area"]) == (2, 1, 6)
    assert "segmentation" not in second
