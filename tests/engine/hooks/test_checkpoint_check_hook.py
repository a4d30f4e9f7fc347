from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import BaseLoop
from torch import nn

from snclr_mm.checkpoint_safety import CheckpointError
from snclr_mm.engine.hooks import CheckpointCheckHook


class Loop(BaseLoop):
    def __init__(self):
        pass

    def run(self):
        pass


def model(classes=3, width=4):
    parts = {"backbone": nn.Linear(5, width), "head": nn.Linear(width, classes)}
    return nn.ModuleDict(parts)


def load(network, state, loop=Loop, resume=False):
    runner = SimpleNamespace(
        model=network,
        _resume=resume,
        _load_from="a.pth",
        _train_loop=loop(),
        work_dir="work",
        param_schedulers=None,
        optim_wrapper=None,
    )
    state = {name: value for name, value in state.items() if value is not None}
    CheckpointCheckHook().after_load_checkpoint(runner, {"state_dict": state})


def test_training_starts_from_a_backbone():
    state = model().state_dict()
    load(model(), state)
    load(model(), {f"module.{name}": value for name, value in state.items()})
    load(model(classes=7), state)  # another head
    load(model(), {k: v for k, v in state.items() if "backbone" in k})
    match = r"a\.pth: of 4 tensors .* 2 of another shape \(backbone\.weight "
    match += r"\[4, 5\] instead of \[8, 5\], backbone\.bias \[4\] instead of \[8\]\)"
    with pytest.raises(CheckpointError, match=match):
        load(model(width=8), state)
    match = r"1 not in the checkpoint \(backbone\.bias\)"
    with pytest.raises(CheckpointError, match=match):
        load(model(), {**state, "backbone.bias": None})
    with pytest.raises(CheckpointError, match="2 not in the checkpoint"):
        load(model(), {})


def test_without_a_backbone_one_part_must_fit():
    parts = nn.ModuleDict({"encoder": nn.Linear(2, 3), "decoder": nn.Linear(3, 2)})
    state = parts.state_dict()
    load(parts, {k: v for k, v in state.items() if "decoder" in k})
    with pytest.raises(CheckpointError, match="1 not in the checkpoint"):
        load(parts, {k: v for k, v in state.items() if "weight" in k})


def test_a_test_needs_the_whole_model():
    state = model().state_dict()
    load(model(), {**state, "other": torch.zeros(1)}, loop=dict)
    match = r"2 not in the checkpoint \(head\.weight, head\.bias\)"
    with pytest.raises(CheckpointError, match=match):
        load(model(), {k: v for k, v in state.items() if "backbone" in k}, loop=dict)


def test_counts_of_batches_may_be_missing():
    norm = nn.Sequential(nn.BatchNorm1d(3))
    state = norm.state_dict()
    load(norm, {**state, "0.num_batches_tracked": None}, loop=dict)
