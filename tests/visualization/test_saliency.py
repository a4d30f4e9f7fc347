import sys

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_config
from mmpretrain.registry import MODELS

from snclr_mm.visualization import saliency, similarity_maps


def batch(images):
    return {"inputs": images, "data_samples": []}


def build(tmp_path, algorithm):
    cfg = tiny_config("", tmp_path)
    if algorithm == "MoCoV3":
        loss = dict(type="CrossEntropyLoss", loss_weight=1.0)
        predictor = cfg.model.head.predictor
        head = dict(type="MoCoV3Head", predictor=predictor, loss=loss, temperature=0.5)
        cfg.model.type, cfg.model.head = "MoCoV3", head
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    for module in model.modules():  # as after training: no map is constant
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("algorithm", ["SNCLR", "MoCoV3"])
def test_against_the_definition(algorithm, tmp_path):
    """Gradient times feature map, by autograd, in double precision."""
    model = build(tmp_path, algorithm)
    images = torch.randint(0, 256, (4, 3, 28, 28), dtype=torch.uint8)
    queries = images[[0, 0, 1]]
    found = similarity_maps(model, batch(queries), batch(images[1:]))
    assert found.shape == (3, 28, 28) and found.min() >= 0
    assert found.max(axis=(1, 2)) == pytest.approx(np.ones(3), abs=1e-3)
    assert all(p.grad is None for p in model.momentum_encoder.parameters())

    model.double()
    view = [model.data_preprocessor(batch(x))["inputs"] for x in (queries, images[1:])]
    network = (
        model.momentum_encoder.module if algorithm == "SNCLR" else [model.backbone]
    )

    def key(maps):
        return network[1]((maps,))[0] if algorithm == "SNCLR" else maps.mean((2, 3))

    with torch.no_grad():
        query = key(network[0](view[0].double())[-1])
        query = torch.nn.functional.normalize(query, dim=1)
        maps = network[0](view[1].double())[-1]
    maps.requires_grad_()
    (grad,) = torch.autograd.grad((key(maps) * query).sum(), maps)
    expected = (grad * maps).sum(1).relu().detach()
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    expected = (expected - low) / (high - low)
    # The package enlarges the maps; their smallest and largest places stay there.
    for map_, large in zip(expected, found, strict=True):
        side = 28 // len(map_)
        small = large.reshape(len(map_), side, len(map_), side).mean((1, 3))
        assert np.corrcoef(small.ravel(), map_.numpy().ravel())[0, 1] > 0.9


def test_a_class_token_has_no_map(tmp_path):
    model = build(tmp_path, "MoCoV3")
    model.backbone.forward = lambda inputs: (torch.zeros(len(inputs), 16),)
    images = batch(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"gives \[2, 16\] and no feature maps"):
        similarity_maps(model, images, images)


def test_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ModuleNotFoundError, match=r"\.\[saliency\]"):
        saliency.similarity_maps(None, {}, {})
