import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10
from PIL import Image

from snclr_mm.evaluation import PreparedImages, embed

PIPELINE = [dict(type="LoadImage"), dict(type="PackInputs")]


@pytest.mark.parametrize(
    "dataset",
    [
        dict(type="CIFAR100"),
        dict(type="mmpretrain.CIFAR10"),
        dict(type=CIFAR10),
        dict(type="LabeledSubset", base="CIFAR10"),
        dict(type="ConcatDataset", datasets=[dict(type="CIFAR10")]),
        dict(type="ImageFolder"),
    ],
)
def test_channels_come_as_in_training(dataset, tmp_path):
    """MMPretrain reads files as BGR, and CIFAR as it is stored, which is RGB."""
    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    mmcv.imwrite(rgb[..., ::-1], str(path))
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dataset),
            test_dataloader=dict(dataset=dict(pipeline=PIPELINE)),
        )
    )
    images = PreparedImages([path, str(path), rgb], cfg)
    assert images.bgr == (dataset["type"] == "ImageFolder")
    expected = torch.from_numpy(rgb[..., ::-1].copy() if images.bgr else rgb)
    for sample in images:
        assert sample["inputs"].equal(expected.permute(2, 0, 1))


def test_pictures_in_memory_are_turned_as_files_are(tmp_path):
    """Cameras save how they were held, in EXIF's tag 274."""
    rgb = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=PIPELINE))))
    path = tmp_path / "turned.png"
    file, memory = PreparedImages([path, Image.open(path)], cfg)
    assert file["inputs"].shape == (3, 24, 40)
    assert memory["inputs"].equal(file["inputs"])


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((9, 9), np.uint8), r"images\[0\] is uint8 \[9, 9\]: .* \[H, W, 3\]"),
        (np.zeros((9, 9, 3)), r"images\[0\] is float64"),
        (np.zeros((3, 9, 9), np.uint8), r"is uint8 \[3, 9, 9\]"),
        (Image.fromarray(np.zeros((9, 9), np.uint16)), "mode I;16, more than 8 bits"),
    ],
)
def test_pictures_of_another_kind(image, message):
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=PIPELINE))))
    with pytest.raises(ValueError, match=message):
        PreparedImages([image], cfg)[0]


def test_no_images():
    with pytest.raises(ValueError, match="images is an empty list"):
        embed([], "checkpoint.pth")
