import json

import pytest

from snclr_mm.engine import annotations
from snclr_mm.engine.annotations import check_coco, leaves

KEY = "train_dataloader.dataset"


@pytest.fixture
def write(tmp_path):
    """Writes an annotation file for one image of 100 x 80 px."""

    def write(boxes, names=("cat", "dog")):
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names, 3)],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": 3, "bbox": box}
                for i, box in enumerate(boxes, 7)
            ],
        }
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


INSIDE = [10, 10, 20, 20]


def test_good_annotations(write):
    check_coco(write([INSIDE, [99, 0, 1, 80], [0, 0, 0, 0.5]]), ("cat", "dog"), KEY)
    check_coco(write([INSIDE]), ("dog",), KEY)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([100, 10, 5, 5], "100, 10, 5, 5"),
        ([10, -9, 5, 8], "10, -9"),
        ([0, 90, 9, 9], ""),
    ],
)
def test_boxes_outside(box, text, write):
    match = rf"1 of 2 boxes .*a\.json are outside.*annotation 8.*{text}.*\(100, 80\)"
    with pytest.raises(ValueError, match=match):
        check_coco(write([INSIDE, box]), ("cat", "dog"), KEY)


def test_boxes_that_stick_out_are_logged(write, monkeypatch):
    log = []
    monkeypatch.setattr(annotations, "print_log", lambda text, **_: log.append(text))
    check_coco(write([INSIDE, [90, 10, 10.5, 5]]), ("cat",), KEY)
    assert not log
    check_coco(write([INSIDE, [90, 10, 20, 5]]), ("cat",), KEY)
    assert len(log) == 1 and "1 of 2 boxes" in log[0] and "annotation 8" in log[0]


def test_classes(write):
    path = write([INSIDE])
    with pytest.raises(ValueError, match=r"no class 'cow' \(1 of 2 .*'cat', 'dog'"):
        check_coco(path, ("cat", "cow"), KEY)
    with pytest.raises(ValueError, match="another order. Use 'cat', 'dog'"):
        check_coco(path, ("dog", "cat"), KEY)
    with pytest.raises(ValueError, match=r"a\.json has no annotations"):
        check_coco(write([]), ("cat",), KEY)


def test_leaves():
    a, b = dict(type="A"), dict(type="B")
    nested = dict(dataset=dict(datasets=[a, dict(dataset=b)]))
    assert list(leaves(nested, "x")) == [
        ("x.dataset.datasets.0", a),
        ("x.dataset.datasets.1.dataset", b),
    ]
