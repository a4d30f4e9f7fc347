import numpy as np
import pytest
from helpers.huge_image import write_huge_image

from snclr_mm.datasets import LoadImage


def test_reads_files_as_three_channels(image_folder):
    for suffix in ("1.jpg", "0.png"):
        path = str(image_folder / "china" / suffix)
        results = LoadImage()({"img_path": path})
        assert results["img"].shape == (96, 96, 3)
        assert results["img"].dtype == np.uint8
        assert results["img"].std() > 0
        assert results["img_shape"] == results["ori_shape"] == (96, 96)


def test_images_in_memory_pass_through():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    results = LoadImage()({"img": grey})
    assert results["img"].shape == (3, 4, 3)
    assert (results["img"] == grey[..., None]).all()
    assert results["img_shape"] == (3, 4)
    color = np.zeros((3, 4, 3), np.uint8)
    assert LoadImage()({"img": color})["img"] is color


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_images_are_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"'{path}' can't be read.*dataset\.data_root"
    ):
        LoadImage()({"img_path": str(path)})


def test_small_files_of_huge_images_are_refused(tmp_path):
    path = tmp_path / "huge.png"
    write_huge_image(path)
    assert path.stat().st_size < 120_000
    with pytest.raises(ValueError, match=rf"'{path}' can't be read.*exceeds limit"):
        LoadImage(imdecode_backend="pillow")({"img_path": str(path)})
