import pytest

from snclr_mm.datasets import ImageFolder


def test_lists_all_images_without_labels(image_folder):
    dataset = ImageFolder(data_root=str(image_folder), pipeline=[])
    assert len(dataset) == 48
    assert set(dataset[0]) == {"img_path", "sample_idx"}
    labeled = ImageFolder(data_root=str(image_folder), with_label=True, pipeline=[])
    assert labeled.CLASSES == ("china", "flower")
    assert {labeled[i]["gt_label"] for i in range(48)} == {0, 1}


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"'{tmp_path}/none/' does not exist.*dat"
    ):
        ImageFolder(data_root=str(tmp_path / "none"))
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(
        ValueError, match=rf"'{tmp_path}/' holds no image: .*\.png.*ext"
    ):
        ImageFolder(data_root=str(tmp_path))
