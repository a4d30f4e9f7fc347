"""The stack's own options, with two views per image and under DDP."""

import pytest
import torch
from helpers.models import RESNET, VIT, neck, soft_head
from helpers.ranks import run_on_ranks
from helpers.tiny import build_runner, tiny_config
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmpretrain.registry import MODELS

from snclr_mm.cli import prepare_torch

OPTIONS = {
    "none": {},
    "with_cp": dict(model__backbone__with_cp=True),
    "by name": dict(activation_checkpointing=["backbone.layer1"]),
}


def train_rank(rank, data_root, work_dir):
    states = {}
    for name, option in OPTIONS.items():
        folder = work_dir / name
        cfg = tiny_config(data_root, folder, launcher="pytorch", **option)
        cfg.train_cfg.max_epochs = 1
        runner = build_runner(cfg)
        runner.train()
        states[name] = {k: p.clone() for k, p in runner.model.named_parameters()}
    return states


def test_under_ddp(digits_root, tmp_path):
    for states in run_on_ranks(2, train_rank, digits_root, tmp_path):
        for name in ("with_cp", "by name"):
            torch.testing.assert_close(states[name], states["none"])


@pytest.mark.parametrize(
    "backbone, width, modules",
    [
        (RESNET, 8, ["backbone.layer1"]),
        (VIT, 16, ["backbone.layers.0", "neck"]),
    ],
    ids=["resnet", "vit"],
)
def test_gradients_are_equal(backbone, width, modules):
    prepare_torch()
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        projector = neck(in_channels=width, with_avg_pool=backbone is RESNET)
        model = MODELS.build(
            dict(type="SNCLR", backbone=backbone, neck=projector, head=soft_head())
        ).double()
        if checkpointed:
            turn_on_activation_checkpointing(model, modules)
        torch.manual_seed(1)
        model.loss(list(torch.randn(2, 8, 3, 16, 16).double()), None)["loss"].backward()
        results.append({n: p.grad for n, p in model.named_parameters()})
    assert results[0].keys() == results[1].keys()
    for name, grad in results[0].items():
        if grad is None:
            assert results[1][name] is None
        else:
            torch.testing.assert_close(results[1][name], grad, msg=name)
