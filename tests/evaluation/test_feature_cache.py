import os
from functools import partial

import mmcv
import pytest
import torch
from mmpretrain.datasets import CustomDataset
from torch import nn

from snclr_mm.evaluation import FeatureCache, Split, hash_weights


class Counter:
    """Gives features, and counts how often it was asked."""

    calls = 0

    def __call__(self):
        self.calls += 1
        return torch.full((3, 2), float(self.calls)), torch.arange(3)


def model(value):
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    nn.init.constant_(model.backbone[0].weight, value)
    nn.init.zeros_(model.backbone[0].bias)
    return model


@pytest.fixture
def images(photos, tmp_path):
    folder = tmp_path / "images"
    for i in range(6):
        mmcv.imwrite(photos[0][:8, :8] + i, str(folder / "class" / f"{i}.png"))
    return folder


def split(folder, rows=range(3), **config):
    return Split(
        "bank", config, CustomDataset(str(folder), serialize_data=False), rows, None
    )


def test_reuse(images, tmp_path):
    extract = Counter()
    get = partial(FeatureCache(tmp_path / "cache", {"type": "A"}).get, extract=extract)
    first = get(model(1.0), split(images))
    again = get(model(1.0), split(images))
    assert extract.calls == 1
    assert all(map(torch.equal, first, again))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_never_stale(images, tmp_path):
    extract = Counter()

    def get(value=1.0, folder=images, model_config="A", **kwargs):
        cache = FeatureCache(tmp_path / "cache", {"type": model_config})
        return cache.get(model(value), split(folder, **kwargs), extract)

    get()
    changes = [
        dict(value=2.0),
        dict(model_config="B"),
        dict(rows=range(2)),
        dict(rows=range(3, 6)),
        dict(pipeline=["Resize"]),
    ]
    for calls, change in enumerate(changes, start=2):
        get(**change)
        assert extract.calls == calls, change
    file = images / "class/1.png"
    os.utime(file, ns=(0, 0))  # written anew
    get()
    assert extract.calls == len(changes) + 2
    get()
    get(rows=range(3, 6))  # the other half's files are the same
    assert extract.calls == len(changes) + 2


def test_interrupted_extraction_leaves_nothing(images, tmp_path):
    cache = FeatureCache(tmp_path / "cache", {})

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get(model(1.0), split(images), interrupted)
    extract = Counter()
    cache.get(model(1.0), split(images), extract)
    assert extract.calls == 1


def test_hash_weights():
    assert hash_weights(model(1.0)) == hash_weights(model(1.0))
    assert hash_weights(model(1.0)) != hash_weights(model(1.5))
    other = model(1.0)
    other.backbone[1].running_mean += 1  # buffers count
    assert hash_weights(other) != hash_weights(model(1.0))
    assert hash_weights(nn.Module()) == hash_weights(nn.Module())
