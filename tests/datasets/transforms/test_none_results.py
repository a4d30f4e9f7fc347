import logging

import pytest
from helpers.tiny import build_runner, tiny_config
from mmpretrain.datasets import FashionMNIST
from mmpretrain.registry import TRANSFORMS

from snclr_mm.datasets import ImageFolder
from snclr_mm.datasets.transforms import none_results


@TRANSFORMS.register_module(force=True)
class RefuseSome:
    """Returns None for images whose index is divisible by a number."""

    def __init__(self, every):
        self.every = every

    def __call__(self, results):
        return results if results["sample_idx"] % self.every else None


@pytest.fixture
def messages(monkeypatch):
    none_results._counts.clear()
    found = []
    record = lambda message, logger, level: found.append((message, level))  # noqa: E731
    monkeypatch.setattr(none_results, "print_log", record)
    return found


def test_the_image_and_the_transform_are_named(image_folder, messages):
    pipeline = [dict(type="LoadImage"), dict(type="RefuseSome", every=3)]
    dataset = ImageFolder(data_root=str(image_folder), pipeline=pipeline)
    path = dataset.get_data_info(3)["img_path"]
    assert dataset[1]["sample_idx"] == 1
    assert not messages
    assert dataset[3]["sample_idx"] % 3
    ((text, level),) = messages[:1]
    assert f"The transform RefuseSome returned None for the image {path!r}" in text
    assert "dataset.pipeline" in text and level == logging.ERROR


def test_many_are_not_all_named(digits_root, messages):
    """Also without paths; the run ends as MMEngine has it."""
    pipeline = [dict(type="RefuseSome", every=1)]
    dataset = FashionMNIST(data_root=str(digits_root), pipeline=pipeline)
    with pytest.raises(Exception, match="Cannot find valid image after 1000"):
        dataset[5]
    assert "RefuseSome returned None for the image 'number 5'" in messages[0][0]
    numbers = ["(number 1 ", "(number 10 ", "(number 100 ", "(number 1000 "]
    for number, (text, _) in zip(numbers, messages, strict=True):
        assert number in text


def test_in_training_and_inside_multi_view(digits_root, tmp_path, messages):
    cfg = tiny_config(digits_root, tmp_path)
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline.insert(1, dict(type="RefuseSome", every=7))
    cfg.train_cfg.max_epochs = 1
    build_runner(cfg).train()
    assert "RefuseSome" in messages[0][0]
    pipeline[1] = dict(
        type="MultiView", num_views=[2], transforms=[[dict(type="RefuseSome", every=1)]]
    )
    none_results._counts.clear()
    del messages[1:]
    with pytest.raises(TypeError):
        build_runner(cfg).train()
    assert "RefuseSome returned None" in messages[1][0]
