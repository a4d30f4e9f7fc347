from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch

from snclr_mm.cli import annotations
from snclr_mm.cli.annotations import check_annotations, check_coco

KEY = "train_dataloader.dataset"


@pytest.fixture
def write():
    """Makes annotations for one image of 100 x 80 px."""

    def write(boxes, names=("cat", "dog")):
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names, 3)],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": 3, "bbox": box}
                for i, box in enumerate(boxes, 7)
            ],
        }
        return content

    return write


INSIDE = [10, 10, 20, 20]


def test_good_annotations(write):
    check_coco(
        write([INSIDE, [99, 0, 1, 80], [0, 0, 0, 0.5]]), "a.json", ("cat", "dog"), KEY
    )
    check_coco(write([INSIDE]), "a.json", ("dog",), KEY)


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
        check_coco(write([INSIDE, box]), "a.json", ("cat", "dog"), KEY)


def test_boxes_that_stick_out_are_logged(write, monkeypatch):
    log = []
    monkeypatch.setattr(annotations, "print_log", lambda text, **_: log.append(text))
    check_coco(write([INSIDE, [90, 10, 10.5, 5]]), "a.json", ("cat",), KEY)
    assert not log
    check_coco(write([INSIDE, [90, 10, 20, 5]]), "a.json", ("cat",), KEY)
    assert len(log) == 1 and "1 of 2 boxes" in log[0] and "annotation 8" in log[0]


def test_classes(write):
    path = write([INSIDE])
    with pytest.raises(ValueError, match=r"no class 'cow' \(1 of 2 .*'cat', 'dog'"):
        check_coco(path, "a.json", ("cat", "cow"), KEY)
    with pytest.raises(ValueError, match="another order. Use 'cat', 'dog'"):
        check_coco(path, "a.json", ("dog", "cat"), KEY)
    with pytest.raises(ValueError, match=r"a\.json has no annotations"):
        check_coco(write([]), "a.json", ("cat",), KEY)


@pytest.mark.parametrize(
    ("part", "values", "match"),
    [
        ("annotations", {"image_id": 9}, "annotation 7 has the image_id 9, and no"),
        ("annotations", {"category_id": 9}, "annotation 7 has the category_id 9"),
        (
            "annotations",
            {"bbox": [1, 1, -5, 5]},
            r"annotation 7 has the bbox \[1, 1, -5",
        ),
        ("annotations", {"bbox": [1, float("nan"), 5, 5]}, "bbox .*nan"),
        ("annotations", {"bbox": [1, 1, float("inf"), 5]}, "bbox .*inf"),
        ("annotations", {"bbox": [1, 1, 5]}, "bbox .*no x, y, width, height"),
        ("annotations", {"bbox": ["1", "1", "5", "5"]}, "not in COCO's format"),
        ("annotations", {"bbox": None}, "not in COCO's format"),
        ("annotations", {"image_id": [1]}, "not in COCO's format"),
        ("images", {"width": -100}, r"size of 'a\.png' is \(-100, 80\)"),
        ("images", {"height": None}, r"size of 'a\.png'"),
        ("images", {"file_name": "../../etc/passwd"}, r"'\.\./.*not below .*data_pref"),
        ("images", {"file_name": "/etc/passwd"}, "'/etc/passwd', which is not below"),
        ("images", {"file_name": "http://a.b/c.png"}, "'http://a.b/c.png', which is"),
        ("categories", {"id": {}}, "not in COCO's format"),
    ],
)
def test_impossible_values(part, values, match, write):
    content = write([INSIDE])
    content[part][0].update(values)
    with pytest.raises(ValueError, match=rf"{KEY}: .*a\.json.*{match}"):
        check_coco(content, "a.json", ("cat", "dog"), KEY)
    del content[part]
    with pytest.raises(ValueError, match="a.json (is not in COCO|has no annot)"):
        check_coco(content, "a.json", ("cat", "dog"), KEY)


class Head(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


def runner_of(dataset, num_classes=2, scope="mmseg"):
    model = torch.nn.Module()
    model.num_classes = num_classes  # as MMSegmentation's segmentors have it
    model.decode_head = Head(num_classes)
    model.rpn_head = Head(1)
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    return SimpleNamespace(
        cfg={"default_scope": scope},
        model=model,
        _train_loop={},
        train_loop=loop,
        _val_loop=None,
    )


@pytest.fixture
def segmentation(tmp_path):
    """Builds a data set of three label maps with the given labels."""
    mmseg = pytest.importorskip("mmseg.datasets", reason="MMSegmentation is missing")

    def build(labels, classes=("a", "b"), **options):
        for name in range(3):
            for folder in ("img", "map"):
                pixels = np.zeros((4, 4), np.uint8)
                pixels.flat[: len(labels)] = labels
                mmcv.imwrite(pixels, str(tmp_path / folder / f"{name}.png"))
        return mmseg.BaseSegDataset(
            data_root=str(tmp_path),
            metainfo=dict(classes=classes),
            data_prefix=dict(img_path="img", seg_map_path="map"),
            **{"img_suffix": ".png", **options},
        )

    return build


def test_label_maps(segmentation, tmp_path):
    stages = ["train", "val"]
    check_annotations(runner_of(segmentation([0, 1, 255])), stages)
    zero_free = segmentation([0, 1, 2], reduce_zero_label=True)
    check_annotations(runner_of(zero_free), stages)
    with pytest.raises(ValueError, match=r"0\.png holds 2, 9, but 0 to 1 are the 2 "):
        check_annotations(runner_of(segmentation([0, 2, 9])), stages)
    with pytest.raises(
        ValueError, match=r"holds 2 after reduce_zero_label, but 0 to 1"
    ):
        three = segmentation([0, 3], reduce_zero_label=True)
        check_annotations(runner_of(three), stages)
    with pytest.raises(ValueError, match=r"no label map .*0_x\.png.*seg_map_suffix"):
        none = segmentation([0], seg_map_suffix="_x.png")
        check_annotations(runner_of(none), stages)


def test_fewer_classes_than_the_data_set_has(tmp_path):
    """Labels are reduced first, then mapped: ADE20K's last one is 150 in the files."""
    ade = pytest.importorskip("mmseg.datasets", reason="MMSegmentation is missing")
    for folder in ("img", "map"):
        pixels = np.full((4, 4), 150, np.uint8)
        pixels[0] = 1
        mmcv.imwrite(pixels, str(tmp_path / f"{folder}/0.png"))
    dataset = ade.ADE20KDataset(
        data_root=str(tmp_path),
        metainfo=dict(classes=("wall", "building")),
        data_prefix=dict(img_path="img", seg_map_path="map"),
        img_suffix=".png",
    )
    check_annotations(runner_of(dataset), ["train"])


def test_heads(segmentation):
    dataset = segmentation([0, 1])
    with pytest.raises(
        ValueError,
        match=r"model\.decode_head\.num_classes=5 does not fit the 2 classes of "
        r"train_dataloader\.dataset \('a', 'b'\)",
    ):
        check_annotations(runner_of(dataset, num_classes=5), ["train"])
    pretraining = runner_of(dataset, num_classes=5, scope="mmpretrain")
    check_annotations(pretraining, ["train"])


def test_objects_of_no_class():
    """As of Pascal VOC, whose objects of other classes are passed over."""

    class Dataset(list):
        def __init__(self, images):
            super().__init__(images)
            self.metainfo = dict(classes=("cat", "dog"))
            self.ann_file = "trainval.txt"

        def get_data_info(self, i):
            return {"instances": self[i]}

    check_annotations(runner_of(Dataset([[], [1]]), scope="mmdet"), ["train"])
    with pytest.raises(ValueError, match=r"no object in trainval\.txt.*'cat', 'dog'"):
        check_annotations(runner_of(Dataset([[], []]), scope="mmdet"), ["train"])


def test_empty_dataset(segmentation):
    """MMEngine's own message is of an array."""

    class Runner(SimpleNamespace):
        @property
        def train_loop(self):
            return segmentation([0], img_suffix=".jpg")

    cfg = {"default_scope": "mmseg"}
    with pytest.raises(
        ValueError, match=r"train_dataloader\.dataset.*is empty.*img_suf"
    ):
        check_annotations(Runner(cfg=cfg, _train_loop={}), ["train"])
