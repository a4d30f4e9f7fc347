"""FSDP through MMEngine's FlexibleRunner, on CPU processes: as DDP does it."""

from copy import deepcopy
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.ranks import run_on_ranks
from helpers.tiny import FIXED_VIEWS, REPOSITORY, build_runner, tiny_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from PIL import Image
from torch.distributed.fsdp._common_utils import HandleTrainingState
from torch.distributed.fsdp._flat_param import FlatParamHandle

from snclr_mm.models import NeighborQueue
from snclr_mm.models.cosine_ema import ForeachCosineEMA

FSDP = REPOSITORY / "configs/_base_/variants/fsdp.py"
VIT = dict(
    model__backbone=dict(
        _delete_=True,
        type="MoCoV3ViT",
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16),
        img_size=28,
        patch_size=7,
        stop_grad_conv1=True,
    ),
    model__neck__in_channels=16,
    model__neck__with_avg_pool=False,
    model__head__attention__projection="linear",
    find_unused_parameters=True,
)
#: 4 steps of 2 x 10 images per epoch; the queue wraps around. No random views, so that
#: a resumed run sees the same.
DATA = dict(
    train_dataloader__batch_size=10,
    train_dataloader__dataset__indices=80,
    train_dataloader__dataset__pipeline=FIXED_VIEWS,
    train_cfg__max_epochs=2,
    # Rounding is all the gradient that a key's bias has; AdamW would scale it up.
    optim_wrapper__optimizer__eps=1e-3,
)


@HOOKS.register_module(force=True)
class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs["loss"].item())


def train(rank, world_size, data_root, work_dir, overrides, fsdp, **wrapper):
    """Train; returns losses, queue, and numbers of elements of this rank."""
    cfg = tiny_config(
        data_root, work_dir, launcher="pytorch", **{**VIT, **DATA, **overrides}
    )
    cfg.custom_hooks.append(dict(type="Losses"))
    if fsdp:
        variant = Config.fromfile(FSDP)
        cfg.runner_type, cfg.strategy = variant.runner_type, deepcopy(variant.strategy)
        cfg.strategy.model_wrapper.update(wrapper)
    runner = build_runner(cfg)
    gathers = train_recording_gathers(runner)
    # Rank 0 may still be writing.
    torch.distributed.barrier()
    losses = next(hook for hook in runner.hooks if isinstance(hook, Losses)).values
    (queue,) = (m for m in runner.model.modules() if isinstance(m, NeighborQueue))
    sizes = [
        sum(p.numel() for p in module.parameters())
        for module in (runner.model.module.backbone, runner.model.module.neck)
    ]
    return losses, queue.features, len(queue), sizes, gathers


def train_recording_gathers(runner):
    """For each forward gather of a momentum unit: has its stream waited for the update?

    On CPUs streams do nothing, but FSDP asks as much of them as of a GPU's.
    """
    averaged, events, waited = set(), [], []
    update, gather = ForeachCosineEMA.update_parameters, FlatParamHandle.unshard

    def updated(average, model):
        update(average, model)
        averaged.update(average.modules())
        events.append("update")

    def gathered(handle):
        forward = handle._training_state == HandleTrainingState.FORWARD
        if forward and handle._fully_sharded_module in averaged:
            last = len(events) - 1 - events[::-1].index("update")
            waited.append(torch.cpu.current_stream() in events[last:])
        gather(handle)

    replace = mock.patch.object
    with (
        replace(torch.cpu.Stream, "wait_stream", lambda self, _: events.append(self)),
        replace(ForeachCosineEMA, "update_parameters", updated),
        replace(FlatParamHandle, "unshard", gathered),
    ):
        runner.train()
    return waited


def load(work_dir, epoch=2):
    return torch.load(work_dir / f"epoch_{epoch}.pth", weights_only=False)


def close(ours, ddps):
    torch.testing.assert_close(ours, ddps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_equals_ddp_and_resumes(digits_root, tmp_path, accumulate):
    overrides = dict(optim_wrapper__accumulative_counts=accumulate)
    results = {
        name: run_on_ranks(
            2, train, 2, digits_root, tmp_path / name, {**overrides, **more}, fsdp
        )
        for name, more, fsdp in (
            ("ddp", {}, False),
            ("fsdp", {}, True),
            (
                "resumed",
                dict(resume=True, load_from=str(tmp_path / "fsdp/epoch_1.pth")),
                True,
            ),
        )
    }
    for ddp, fsdp, resumed in zip(*results.values(), strict=True):
        close(fsdp[0], ddp[0])
        assert len(set(ddp[0])) == 8
        assert ddp[2] == 80
        close(fsdp[1], ddp[1])
        close(resumed[0], ddp[0][4:])
        close(resumed[1], ddp[1])
        # Two views of 8 steps; the layers are units, and so are backbone and neck.
        assert len(fsdp[4]) == 2 * 8 * 4
        assert all(fsdp[4]) and all(resumed[4])
    # Each rank holds its part of the parameters.
    whole = results["ddp"][0][3]
    parts = [result[3] for result in results["fsdp"]]
    assert [sum(part) for part in zip(*parts, strict=True)] == whole
    assert all(0 < part[0] < whole[0] for part in parts)
    # Same names and values, momentum branch included: it loads without FSDP.
    state = load(tmp_path / "ddp")["state_dict"]
    for name in ("fsdp", "resumed"):
        close(load(tmp_path / name)["state_dict"], state)
    start = load(tmp_path / "ddp", epoch=1)["state_dict"]
    name = "momentum_encoder.module.0.layers.0.ln1.bias"
    assert not torch.equal(state[name], start[name])


def test_lars_is_refused(digits_root, tmp_path):
    lars = dict(
        optim_wrapper__optimizer=dict(_delete_=True, type="ForeachLARS", lr=1.0)
    )
    with pytest.raises(RuntimeError, match="ValueError.*ForeachLARS.*sharded"):
        run_on_ranks(1, train, 1, digits_root, tmp_path, lars, True)


@pytest.mark.parametrize(
    "option, key",
    [
        (dict(optim_wrapper__clip_grad=dict(max_norm=1.0)), "clip_grad"),
        (dict(optim_wrapper__paramwise_cfg=dict(flat_decay_mult=0.0)), "flat_decay_mu"),
    ],
)
def test_what_needs_whole_parameters_is_refused(digits_root, tmp_path, option, key):
    with pytest.raises(RuntimeError, match=f"ValueError: optim_wrapper.*{key}"):
        run_on_ranks(1, train, 1, digits_root, tmp_path, option, True)


def train_in_vain(rank, *args):
    """What FSDP settings that do not update the momentum branch raise."""
    messages = []
    for wrapper in (
        dict(sharding_strategy="SHARD_GRAD_OP"),
        dict(auto_wrap_policy=None),
        dict(forward_prefetch=True),
    ):
        with pytest.raises(ValueError) as caught:
            train(rank, *args, **wrapper)
        messages.append(str(caught.value))
    return messages


def test_settings_without_a_momentum_update_are_refused(digits_root, tmp_path):
    results = run_on_ranks(2, train_in_vain, 2, digits_root, tmp_path, {}, True)
    for sharding, policy, prefetch in results:
        assert "SHARD_GRAD_OP keeps" in sharding
        assert "use one of ['FULL_SHARD', 'HYBRID_SHARD']" in sharding
        assert "0.cls_token of the momentum branch is in FSDP's root unit" in policy
        assert "gathers the momentum branch before it is updated" in prefetch


def test_one_process_needs_no_fsdp(digits_root, tmp_path):
    cfg = tiny_config(digits_root, tmp_path, **VIT, **DATA)
    variant = Config.fromfile(FSDP)
    cfg.runner_type, cfg.strategy = variant.runner_type, variant.strategy
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 16
    assert type(runner.strategy).__name__ == "SingleDeviceStrategy"


def test_pictures_of_neighbors(digits_root, tmp_path):
    """The hook calls parts of the model, whose parameters are in shards."""
    views = tiny_config(digits_root, tmp_path).train_dataloader.dataset.pipeline
    pictures = {}
    for name, fsdp in (("ddp", False), ("fsdp", True)):
        hooks = [
            dict(type="NeighborQueueHook"),
            dict(type="NeighborImagesHook", num_images=30),
        ]
        overrides = dict(
            custom_hooks=hooks,
            train_cfg__max_epochs=1,
            train_dataloader__dataset__pipeline=views,
        )
        run_on_ranks(2, train, 2, digits_root, tmp_path / name, overrides, fsdp)
        (file,) = (tmp_path / name).rglob("vis_image/neighbors_4.png")
        pictures[name] = np.asarray(Image.open(file)).astype(int)
    assert pictures["ddp"].std() > 10
    assert np.abs(pictures["fsdp"] - pictures["ddp"]).mean() < 1
