import numpy as np
import pytest
from helpers.photos import READABLE, UNREADABLE, write_mixed_folder
from PIL import Image

from snclr_mm.datasets import ImageFolder, image_check
from snclr_mm.datasets.image_check import check_images
from snclr_mm.datasets.image_folder import EXTENSIONS

LOAD = [dict(type="LoadImage")]


@pytest.fixture
def folder(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_mixed_folder(tmp_path / "my photos, 2024", photos)


def test_what_is_found_is_what_can_be_decoded(folder):
    check = check_images(str(folder), EXTENSIONS)
    assert check.images == READABLE
    assert check.side == 64
    assert {path.rsplit("/")[-1]: why for path, why in check.skipped.items()} == {
        "empty.jpg": "empty",
        "one.png": "smaller than 8 pixels",
        "text.jpg": "not an image",
        "truncated.jpg": "truncated or damaged",
    }
    assert check.others == {"hidden": 2, ".txt": 1}
    assert "24 images" in str(check) and "1 not an image" in str(check)
    dataset = ImageFolder(data_root=str(folder), pipeline=LOAD, skip_limit=0.2)
    assert len(dataset) == READABLE
    for row in range(READABLE):
        image = dataset[row]["img"]
        assert image.shape == (64, 80, 3) and image.dtype == np.uint8
        assert image.std() > 1


def test_files_that_only_pillow_reads(folder):
    (folder / "deep").mkdir()
    for dtype in (np.float32, np.int32, np.uint16):
        picture = Image.fromarray(np.arange(400).reshape(20, 20).astype(dtype))
        picture.save(folder / "deep" / f"{np.dtype(dtype)}.tif")
    dataset = ImageFolder(data_root=str(folder / "deep"), pipeline=LOAD, skip_limit=0.7)
    assert set(dataset.check.skipped.values()) == {"of 32 bits per pixel"}
    assert len(dataset) == 1 and dataset[0]["img"].shape == (20, 20, 3)


def test_only_changed_files_are_read_again(folder, monkeypatch):
    first = check_images(str(folder), EXTENSIONS)
    read = []
    check = image_check._check
    monkeypatch.setattr(image_check, "_check", lambda p: read.append(p) or check(p))
    assert check_images(str(folder), EXTENSIONS) == first
    assert not read
    (folder / "flower/text.jpg").unlink()
    Image.new("RGB", (20, 20)).save(folder / "flower/one.png")
    again = check_images(str(folder), EXTENSIONS)
    assert read == [str(folder / "flower/one.png")]
    assert (again.images, len(again.skipped)) == (READABLE + 1, UNREADABLE - 2)


def test_a_folder_that_cannot_keep_the_check(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (folder / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert "1 broken links" in str(check_images(str(folder), EXTENSIONS))


def test_too_many_unreadable_images(folder):
    with pytest.raises(ValueError, match=r"4 of 28 .*skip_limit=0\.1 allows: .*empty"):
        ImageFolder(data_root=str(folder), pipeline=LOAD, skip_limit=0.1)


def test_an_image_that_turns_out_to_be_damaged(folder, caplog):
    """Headers and endings cannot tell everything: another image takes its place."""
    limit = (UNREADABLE + 1.5) / (READABLE + UNREADABLE)
    dataset = ImageFolder(data_root=str(folder), pipeline=LOAD, skip_limit=limit)
    strict = ImageFolder(data_root=str(folder), pipeline=LOAD)
    for row in range(2):
        path = dataset.get_data_info(row)["img_path"]
        with open(path, "wb") as file:
            file.write(b"damaged")
    for _ in range(2):
        assert dataset[0]["img_path"] != dataset.get_data_info(0)["img_path"]
    with pytest.raises(ValueError, match="6 of 28 images .* cannot be read"):
        dataset.prepare_data(1)
    with pytest.raises(ValueError, match=r"can't be read.*skip_limit"):
        strict[0]


def test_hidden_folders_are_no_classes(folder):
    for name in ("notes", "one", "text", "empty", "truncated"):
        next((folder / "flower").glob(f"{name}.*")).unlink()
    dataset = ImageFolder(data_root=str(folder), pipeline=LOAD, with_label=True)
    assert dataset.CLASSES == ("china", "flower")
    labels = [dataset.get_data_info(row)["gt_label"] for row in range(len(dataset))]
    assert (labels.count(0), labels.count(1)) == (17, 7)
