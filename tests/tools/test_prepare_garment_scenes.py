import hashlib
import json

import cv2
import numpy as np
import pytest
from helpers.command import load_tool, tool

prepare_garment_scenes = load_tool("data/prepare_garment_scenes.py")
prepare = prepare_garment_scenes.prepare


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    parts = [f"{p.relative_to(root)}".encode() + p.read_bytes() for p in files]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def mask_of(annotation):
    runs = annotation["segmentation"]["counts"]
    values = np.arange(len(runs)) % 2 == 1
    size = annotation["segmentation"]["size"]
    return np.repeat(values, runs).reshape(size, order="F")


@pytest.fixture(scope="module")
def scenes(digits_root, tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    prepare(root, digits_root, train=12, val=4, unlabeled=9)
    return root


def test_annotations_agree_with_the_pictures(scenes):
    """Instances do not overlap, are of the semantic map's class, and fill their box."""
    for split, number in (("train", 12), ("val", 4)):
        data = json.loads((scenes / f"annotations/{split}.json").read_text())
        assert [c["name"] for c in data["categories"]] == list(
            prepare_garment_scenes.CLASSES
        )
        assert len(data["images"]) == number
        for image in data["images"]:
            picture = cv2.imread(str(scenes / split / image["file_name"]))
            path = scenes / "semantic" / split / image["file_name"]
            semantic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert picture.shape == (128, 128, 3) and semantic.shape == (128, 128)
            covered = np.zeros((128, 128), int)
            for a in data["annotations"]:
                if a["image_id"] != image["id"]:
                    continue
                mask = mask_of(a)
                covered += mask
                assert (semantic[mask] == a["category_id"]).all()
                assert a["area"] == mask.sum() > 0
                x, y, w, h = a["bbox"]
                assert mask[y : y + h, x : x + w].sum() == a["area"]
                assert mask[y].any() and mask[:, x].any()
                assert mask[y + h - 1].any() and mask[:, x + w - 1].any()
            assert covered.max() == 1
            assert (semantic[covered == 0] > 0).mean() < 0.1  # hidden garments only


def test_the_same_seed_gives_the_same_files(scenes, digits_root, tmp_path):
    prepare(tmp_path / "same", digits_root, train=12, val=4, unlabeled=9)
    prepare(tmp_path / "other", digits_root, 12, 4, unlabeled=9, seed=1)
    assert digest(tmp_path / "same") == digest(scenes) != digest(tmp_path / "other")


def test_splits_share_nothing(digits_root, photos, tmp_path, monkeypatch):
    seen = []
    original = prepare_garment_scenes.compose

    def compose(data, photos, *args, **kwargs):
        seen.append(({bytes(item["img"]) for item in data}, photos))
        return original(data, photos, *args, **kwargs)

    monkeypatch.setattr(prepare_garment_scenes, "compose", compose)
    prepare(tmp_path, digits_root, train=1, val=1, unlabeled=1)
    (train, left), (val, right), (unlabeled, _) = seen
    assert unlabeled == train
    assert len(train) > 1400 and len(val) > 350 and not train & val
    for a, b, photo in zip(left, right, photos, strict=True):
        assert a.shape == b.shape
        assert np.array_equal(np.hstack([a, b]), photo)


def test_unlabeled_pictures(scenes):
    """One garment, of which a good part is visible, on a plain color."""
    paths = sorted((scenes / "unlabeled").iterdir())
    assert len(paths) == 9
    for path in paths:
        pixels = cv2.imread(str(path)).reshape(-1, 3)
        assert len(pixels) == 64 * 64
        _, counts = np.unique(pixels, axis=0, return_counts=True)
        assert 64 * 64 * 0.2 < counts.max() < 64 * 64 * 0.95


def test_silhouette():
    """Holes are filled, specks and dark noise are not part of it."""
    garment = np.zeros((28, 28), np.uint8)
    garment[5:20, 5:20] = 200
    garment[10:14, 10:14] = 0  # hole
    garment[25, 25] = 200  # speck
    garment[0:3] = 10  # noise
    image, mask = prepare_garment_scenes.enlarge(garment[..., None], 56)
    expected = np.zeros((56, 56), bool)
    expected[10:40, 10:40] = True
    assert np.array_equal(mask, expected)
    assert image.shape == (56, 56) and image[24, 24] == 0 and image[12, 12] == 200
    _, mask = prepare_garment_scenes.enlarge(np.zeros((28, 28), np.uint8), 30)
    assert not mask.any()


def test_command(digits_root, tmp_path):
    options = ["--garments", digits_root, "--train", 2, "--val", 1]
    options += ["--unlabeled", 2]
    text = tool("data/prepare_garment_scenes.py", "out", *options, cwd=tmp_path)
    assert "train: 2 images" in text and "val: 1 images" in text
    with pytest.raises(SystemExit, match=r"prepare_fashion_mnist\.py"):
        prepare_garment_scenes.main([str(tmp_path / "new"), "--garments", "none"])
    with pytest.raises(SystemExit, match="is not empty"):
        prepare_garment_scenes.main([str(tmp_path / "out")])
    assert len(list((tmp_path / "out/unlabeled").iterdir())) == 2
    with pytest.raises(SystemExit, match="--train 0"):
        prepare_garment_scenes.main([str(tmp_path), "--train", "0"])
