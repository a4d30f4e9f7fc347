import hashlib
import json
import subprocess
import zipfile

import cv2
import numpy as np
import pytest
from helpers.command import load_tool

prepare_tree_crowns = load_tool("data/prepare_tree_crowns.py")
BOXES = np.array([[10, 20, 50, 60], [190, 190, 230, 230], [650, 390, 700, 420.0]])


@pytest.fixture
def wheel(photos, tmp_path, monkeypatch):
    """A wheel with one real photograph, 700 x 450, and three boxes."""
    photo = cv2.resize(photos[0], (700, 450))
    sides = ("xmin", "ymin", "xmax", "ymax")
    xml = "".join(
        "<object><bndbox>"
        + "".join(f"<{s}>{v:g}</{s}>" for s, v in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for box in BOXES
    )
    path = tmp_path / "deepforest.whl"
    with zipfile.ZipFile(path, "w") as archive:
        png = cv2.imencode(".png", photo)[1].tobytes()
        archive.writestr("deepforest/data/wood.png", png)
        archive.writestr("deepforest/data/wood.xml", f"<annotation>{xml}</annotation>")
    monkeypatch.setattr(prepare_tree_crowns, "PHOTOGRAPHS", {"wood": len(BOXES)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(prepare_tree_crowns, "SHA256", digest)
    return path, photo


def test_tiles(wheel, tmp_path):
    """Pixels and boxes are the photograph's, and no column is in both splits."""
    path, photo = wheel
    root = tmp_path / "crowns"
    prepare_tree_crowns.prepare(root, path)
    columns = {}
    for split in ("train", "val"):
        data = json.loads((root / f"annotations/{split}.json").read_text())
        assert data["categories"] == [{"id": 1, "name": "tree"}]
        columns[split] = set()
        for image in data["images"]:
            tile = cv2.imread(str(root / split / image["file_name"]))
            x, y = map(int, image["file_name"].removesuffix(".png").split("_")[1:])
            assert np.array_equal(tile, photo[y : y + 200, x : x + 200])
            columns[split] |= set(range(x, x + 200))
            found = [a for a in data["annotations"] if a["image_id"] == image["id"]]
            assert found
            for a in found:
                left, top, w, h = a["bbox"]
                assert min(left, top) >= 0 and max(left + w, top + h) <= 200
                assert a["area"] == w * h
                overlap = (
                    np.minimum(BOXES[:, 2:], [x + left + w, y + top + h])
                    - np.maximum(BOXES[:, :2], [x + left, y + top])
                ).clip(0)
                assert overlap.prod(axis=1).max() == w * h
    assert not columns["train"] & columns["val"]
    assert min(columns["val"]) >= 467


def test_boxes_in_a_tile():
    boxes_in = prepare_tree_crowns.boxes_in
    boxes = np.array([[10, 20, 50, 60], [190, 0, 230, 40], [180, 190, 210, 205.0]])
    # Whole; a quarter inside; two thirds by two thirds.
    assert boxes_in(boxes[:2], 0, 0).tolist() == [[10, 20, 40, 40]]
    assert boxes_in(boxes[2:], 0, 0).tolist() == []
    assert boxes_in(boxes[2:], 5, 10).tolist() == [[175, 180, 25, 15]]


def test_corners_cover_the_region():
    found = list(prepare_tree_crowns.corners(100, 650, 450, 200))
    assert {x for x, _ in found} == {100, 300, 450}
    assert {y for _, y in found} == {0, 200, 250}
    assert list(prepare_tree_crowns.corners(0, 150, 450, 200)) == []


def test_other_wheels_are_refused(wheel, tmp_path, monkeypatch):
    path, _ = wheel
    other = tmp_path / "other.whl"
    other.write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"other\.whl is not the wheel of deepforest"):
        prepare_tree_crowns.main([str(tmp_path / "out"), "--wheel", str(other)])
    monkeypatch.setattr(prepare_tree_crowns, "PHOTOGRAPHS", {"wood": 4})
    with pytest.raises(SystemExit, match="wood has 3 boxes, not 4"):
        prepare_tree_crowns.main([str(tmp_path / "out"), "--wheel", str(path)])
    with pytest.raises(SystemExit, match=r"none\.whl"):
        prepare_tree_crowns.main([str(tmp_path / "out"), "--wheel", "none.whl"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match="is not empty"):
        prepare_tree_crowns.main([str(tmp_path), "--wheel", str(path)])


def test_pip_without_network(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess([], 1, stdout="", stderr="no route")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(SystemExit, match=r"(?s)no route.*--wheel"):
        prepare_tree_crowns.main([str(tmp_path / "out")])
