import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10

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


def test_no_images():
    with pytest.raises(ValueError, match="images is an empty list"):
        embed([], "checkpoint.pth")
