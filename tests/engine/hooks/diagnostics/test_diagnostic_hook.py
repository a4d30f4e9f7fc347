import json
import random
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.amp import OVERFLOWS_ONCE, on_each_device
from helpers.diagnostics import (
    DIAGNOSTICS,
    comparable,
    find,
    scalar,
    train,
)
from helpers.ranks import run_on_ranks
from helpers.tiny import CONFIG, REPOSITORY, build_runner, tiny_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model
from torch import nn

import snclr_mm.engine as engine
from snclr_mm.engine.hooks.diagnostics.diagnostic_hook import FirstViewFeatures

EVERY_STEP = [dict(type=name, interval=1) for name in DIAGNOSTICS]
LABELED = {"online_linear_top1", "online_knn_top1", "neighbor_purity"}
COLLAPSE = {
    f"{features}_{measure}"
    for features in ("backbone", "projection")
    for measure in ("rankme", "std", "std_ratio")
}
NEIGHBORS = {
    "neighbor_age",
    "neighbor_relative_age",
    "positiveness_entropy",
    "effective_neighbors",
}


def logged(runner):
    prefix = "train/diagnostics/"
    names = runner.message_hub.log_scalars
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


@HOOKS.register_module(force=True)
class Attachments(Hook):
    """Counts what is attached to the model in each step, and between the steps."""

    priority = "VERY_LOW"

    def __init__(self):
        self.during, self.between = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.during.append(self.count(runner))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.between.append(self.count(runner))

    def count(self, runner):
        hooks = sum(len(m._forward_hooks) for m in runner.model.modules())
        return hooks + len(getattr(runner.model.head, "search_observers", []))


def everything(runner):
    """All that the training may depend on, after it."""
    python = random.getstate()[1]
    return {
        "model": get_ori_model(runner.model).state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "losses": runner.message_hub.get_scalar("train/loss").data[0].tolist(),
        "generators": (torch.get_rng_state(), np.random.get_state()[1], python),
    }


def assert_same_bits(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


ADAM = dict(type="Adam", lr=0.01)  # it has state, which must stay the probe's own
OPTIONS = dict(
    model__channels_last=True,
    optim_wrapper__type="CPUAmpOptimWrapper",
    optim_wrapper__accumulative_counts=2,
)


@pytest.mark.parametrize(
    "algorithm, overrides",
    [
        ("SNCLR", {}),
        ("SNCLR", OPTIONS),
        ("MoCoV3", {}),
        ("BYOL", {}),
        ("SimSiam", {}),
        ("SwAV", {}),
    ],
    ids=["SNCLR", "SNCLR-options", "MoCoV3", "BYOL", "SimSiam", "SwAV"],
)
def test_training_is_the_same_to_the_bit(digits_root, tmp_path, algorithm, overrides):
    def run(name, hooks):
        runner = train(
            digits_root,
            tmp_path / name,
            [*hooks, "Attachments"],
            recorder=False,
            algorithm=algorithm,
            train_cfg__max_epochs=1,
            **overrides,
        )
        return runner, everything(runner)

    runner, off = run("off", [])
    assert logged(runner) == set()
    assert find(runner, "Attachments").during == [0] * 4  # no hook, no work
    runner, on = run("on", [dict(EVERY_STEP[0], optimizer=ADAM), *EVERY_STEP[1:]])
    assert_same_bits(on, off)

    names = COLLAPSE | LABELED | NEIGHBORS
    if algorithm != "SNCLR":
        names -= NEIGHBORS | {"neighbor_purity"}
    assert logged(runner) == names
    assert all(np.isfinite(scalar(runner, name)).all() for name in names)

    # A checkpoint is the one that a run without the hooks would write, and more keys.
    with_hooks, without = (
        torch.load(tmp_path / name / "epoch_1.pth", weights_only=True)
        for name in ("on", "off")
    )
    added = {"online_linear_probe"}
    if algorithm == "SNCLR":
        added.add("neighbor_labels")
    assert set(with_hooks) - set(without) == added
    assert_same_bits(with_hooks["state_dict"], without["state_dict"])

    (log,) = (tmp_path / "on").glob("*/*.log")
    told = log.read_text().count("Hook: the model ")
    assert told == (4 if algorithm != "SNCLR" else 0)


def train_rank(rank, data_root, work_dir, hooks):
    runner = train(data_root, work_dir, hooks, recorder=False, **comparable(2))
    return everything(runner), logged(runner)


def test_training_is_the_same_to_the_bit_on_two_ranks(digits_root, tmp_path):
    off = run_on_ranks(2, train_rank, digits_root, tmp_path / "off", [])
    on = run_on_ranks(2, train_rank, digits_root, tmp_path / "on", EVERY_STEP)
    for (actual, names), (expected, _) in zip(on, off, strict=True):
        assert_same_bits(actual, expected)
        assert names == COLLAPSE | LABELED | NEIGHBORS


def test_in_log_and_scalars(watched):
    runner = watched("plain")
    (path,) = Path(runner.work_dir).glob("*/vis_data/scalars.json")
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    (log,) = Path(runner.work_dir).glob("*/*.log")
    text = log.read_text()
    for name in LABELED | NEIGHBORS:
        values = scalar(runner, name)
        written = [step.get(f"diagnostics/{name}") for step in steps]
        # The logger runs after the measurement: each step has its own value.
        assert written[-len(values) :] == pytest.approx(values)
        assert written[: -len(values)] == [None] * (8 - len(values))
        assert f"diagnostics/{name}: {values[-1]:.4f}" in text
    for name in COLLAPSE:
        first, second = scalar(runner, name)  # after the fourth and the eighth step
        written = [step.get(f"diagnostics/{name}") for step in steps]
        assert written == [None] * 3 + [first] * 4 + [second]


def test_works_in_measured_iterations_only(digits_root, tmp_path):
    hooks = [dict(hook, interval=3) for hook in EVERY_STEP]
    hooks[-1]["num_batches"] = 2
    runner = train(digits_root, tmp_path, [*hooks, "Attachments"], recorder=False)
    attached = find(runner, "Attachments")
    assert attached.between == [0] * 8
    measured = attached.during[2]
    assert measured >= 2 + 2 + 1 + 1 + 1  # modules of each hook
    collapse = 3
    assert attached.during == [0, collapse, measured] * 2 + [0, collapse]
    assert len(scalar(runner, "online_linear_top1")) == 2
    assert len(scalar(runner, "backbone_rankme")) == 2


@pytest.mark.parametrize("algorithm", ["SimCLR", "SwAV"])
def test_takes_the_rows_of_the_first_view(digits_root, tmp_path, algorithm):
    class Features(engine.DiagnosticHook):
        def __init__(self):
            super().__init__(interval=1)
            self.kept = []

        def _attach(self, model, stack):
            self.view = FirstViewFeatures(model, stack, ("backbone", "neck"))

        def _measure(self, runner, data_batch):
            self.kept.append(self.view.features)
            return {}

    hook = Features()
    runner = train(
        digits_root,
        tmp_path,
        algorithm=algorithm,
        before=lambda runner: runner.register_hook(hook),
        train_cfg__max_epochs=1,
    )
    steps = find(runner, "Recorder").steps
    assert len(hook.kept) == len(steps) == 4
    for features, step in zip(hook.kept, steps, strict=True):
        # SimCLR's batch is x_1, x_2 of image 1, of image 2, ...; SwAV's all x_1 first.
        rows = slice(0, None, 2) if algorithm == "SimCLR" else slice(0, 16)
        expected = step["backbone"][0][rows].mean(dim=(2, 3))
        torch.testing.assert_close(features["backbone"], expected)
        torch.testing.assert_close(features["neck"], step["neck"][0][rows])
        assert not features["backbone"].requires_grad
        assert not features["neck"].requires_grad


class Toy(nn.Module):
    def __init__(self, output=lambda x: x.mean(dim=(2, 3))):
        super().__init__()
        self.data_preprocessor = nn.Identity()
        self.backbone = nn.Identity()
        self.backbone.forward = output


@pytest.mark.parametrize("order", ["x_2 first", "shuffled", "x_1 is not all"])
def test_features_without_a_known_order(order):
    x_1, x_2 = torch.randn(2, 6, 3, 4, 4)
    images = {
        "x_2 first": x_2,
        "shuffled": torch.cat([x_1, x_2])[torch.randperm(12)],
        "x_1 is not all": x_1[:4],
    }[order]
    model = Toy()
    with ExitStack() as stack:
        FirstViewFeatures(model, stack)
        model.data_preprocessor({"inputs": [x_1, x_2]})
        with pytest.raises(RuntimeError, match="features have no known labels"):
            model.backbone(images)


def test_a_cast_first_view_is_found():
    x_1, x_2 = torch.randn(2, 6, 3, 4, 4)
    model = Toy()
    with ExitStack() as stack:
        view = FirstViewFeatures(model, stack)
        model.data_preprocessor({"inputs": [x_1, x_2]})
        model.backbone(torch.cat([x_1, x_2]).bfloat16())
    expected = x_1.mean(dim=(2, 3))
    torch.testing.assert_close(
        view.features["backbone"], expected, atol=0.02, rtol=0.02
    )


def test_outputs_that_are_no_features():
    # MAE's backbone in training: (latent, mask, ids_restore).
    model = Toy(lambda x: (x.mean(dim=(2, 3)), torch.zeros(6, 4, dtype=torch.long)))
    x_1 = torch.randn(6, 3, 4, 4)
    with ExitStack() as stack:
        FirstViewFeatures(model, stack)
        model.data_preprocessor({"inputs": x_1})
        with pytest.raises(ValueError, match=r"torch\.int64, not features.*custom_ho"):
            model.backbone(x_1)


def test_unlabeled_data(digits_root, image_folder, tmp_path):
    runner = train(
        digits_root,
        tmp_path,
        EVERY_STEP,
        recorder=False,
        train_dataloader__dataset=dict(
            type="ImageFolder", data_root=str(image_folder), indices=48
        ),
    )
    assert logged(runner) == COLLAPSE | NEIGHBORS
    (log,) = tmp_path.glob("*/*.log")
    text = log.read_text()
    for name in DIAGNOSTICS[:3]:
        assert text.count(f"{name}: the batch has no labels") == 1


def test_images_that_are_not_finite(digits_root, tmp_path):
    # Images of the third iteration are NaN: its step is skipped.
    runner = train(
        digits_root,
        tmp_path,
        [dict(hook, window=1) if "Online" in hook["type"] else hook
         for hook in EVERY_STEP],
        dict(nan_at=2),
    )  # fmt: skip
    assert find(runner, "OnlineLinearProbeHook").probe.weight.isfinite().all()
    for name in logged(runner):
        assert np.isfinite(scalar(runner, name)).all(), name
    assert len(scalar(runner, "backbone_rankme")) == runner.iter - 1


def test_one_line_turns_all_on(digits_root, tmp_path):
    path = tmp_path / "config.py"
    variant = REPOSITORY / "configs/_base_/variants/diagnostics.py"
    path.write_text(
        f'_base_ = ["{CONFIG}", "{variant}"]\n'
        "custom_hooks = _base_.custom_hooks + _base_.diagnostics\n"
    )
    hooks = Config.fromfile(path).custom_hooks
    assert [hook.type for hook in hooks] == ["NeighborQueueHook", *DIAGNOSTICS]
    cfg = tiny_config(digits_root, tmp_path)
    cfg.custom_hooks = hooks
    # One more, as --cfg-options default_hooks.age.type=NeighborAgeHook adds it.
    cfg.merge_from_dict({"default_hooks.age.type": "NeighborAgeHook"})
    names = [type(hook).__name__ for hook in build_runner(cfg).hooks]
    first, last = names.index("NeighborQueueHook"), names.index("LoggerHook")
    assert sorted(names[first + 1 : last]) == sorted([*DIAGNOSTICS, "NeighborAgeHook"])
    assert last < names.index("RobustCheckpointHook")


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_all_are_documented(name):
    text = (REPOSITORY / "docs/diagnostics.md").read_text()
    assert f"`{name}`" in text
    documented = getattr(engine, name).__doc__
    scalars = [s for s in LABELED | NEIGHBORS | COLLAPSE if f"/{s}`" in documented]
    assert scalars
    assert all(f"`{scalar}`" in text for scalar in scalars)


@pytest.mark.parametrize("name", DIAGNOSTICS)
@pytest.mark.parametrize("interval", [0, -1, 1.5])
def test_bad_interval(name, interval):
    with pytest.raises(ValueError, match=rf"{name}\.interval={interval} .*custom_hoo"):
        getattr(engine, name)(interval=interval)


@on_each_device
def test_float16_with_a_loss_scaler(digits_root, tmp_path, wrapper):
    runner = train(
        digits_root,
        tmp_path,
        EVERY_STEP,
        recorder=False,
        optim_wrapper__type=wrapper,
        optim_wrapper__loss_scale=OVERFLOWS_ONCE,
    )
    for name in COLLAPSE | LABELED | NEIGHBORS:
        values = scalar(runner, name)
        assert len(values) >= 5 and np.isfinite(values).all(), name
