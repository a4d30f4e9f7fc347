import pytest
import torch
from mmpretrain.models import ResNet, ResNet_CIFAR, VisionTransformer
from torch import nn

from snclr_mm.checkpoints import (
    ResNetArchitecture,
    ViTArchitecture,
    infer_architecture,
)
from snclr_mm.checkpoints.architecture import load_exactly


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnets(depth):
    assert infer_architecture(ResNet(depth).state_dict()) == ResNetArchitecture(depth)


def test_vit():
    arch = dict(embed_dims=24, num_layers=11, num_heads=3, feedforward_channels=50)
    state = VisionTransformer(arch, img_size=48, patch_size=8).state_dict()
    expected = ViTArchitecture(**arch, patch_size=8, image_size=48)
    assert infer_architecture(state, num_heads=3) == expected
    state["pos_embed"] = torch.zeros(1, 7, 24)
    with pytest.raises(ValueError, match="7 positions"):
        infer_architecture(state, num_heads=3)


def test_others_are_refused():
    with pytest.raises(ValueError, match=r"\(64, 3, 3, 3\).*7 x 7 stem"):
        infer_architecture(ResNet_CIFAR(18).state_dict())
    with pytest.raises(ValueError, match="neither.*begin with 0.weight, 0.bias"):
        infer_architecture(nn.Sequential(nn.Linear(2, 2)).state_dict())


def test_load_exactly():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    state = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    with pytest.raises(ValueError, match=r"missing \['1.weight', '1.bias'\]"):
        load_exactly(model, state)
    model = model[:1]
    loaded = load_exactly(model, state)
    assert loaded[0].weight.dtype == torch.float64 and not loaded.training
    with pytest.raises(ValueError, match=r"unknown \['x'\]"):
        load_exactly(model, {**state, "x": torch.ones(1)})
    with pytest.raises(ValueError, match="size mismatch"):
        load_exactly(model, {**state, "0.bias": torch.ones(3)})
