import shutil

import numpy as np
import pytest
import torch
from helpers.amp import on_each_device
from helpers.ranks import run_on_ranks
from helpers.tiny import FIXED_VIEWS, build_runner, norm_free, tiny_config
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from snclr_mm.engine.hooks.exact_resume_hook import SeededBatch

BY_ITER = dict(
    train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=8),
    train_dataloader__sampler__type="InfiniteSampler",
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=3),
        dict(type="CosineAnnealingLR", by_epoch=False, T_max=5, begin=3, end=8),
    ],
    default_hooks__checkpoint__by_epoch=False,
    log_processor=dict(by_epoch=False),
)


@HOOKS.register_module(force=True)
class StopAfter(Hook):
    """Asks for a stop after an iteration, as a signal does; records learning rates."""

    def __init__(self, iteration=None):
        self.iteration = iteration
        self.rates = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.optimizer.param_groups[0]["lr"])
        (guard,) = [h for h in runner.hooks if type(h).__name__ == "StepGuardHook"]
        guard.stop_requested |= runner.iter + 1 == self.iteration


def run(data_root, work_dir, stop=None, resume=False, **overrides):
    """Train; returns the state at the end, and the learning rates."""
    cfg = tiny_config(data_root, work_dir, **{"randomness__seed": None, **overrides})
    cfg.custom_hooks = [
        dict(type="NeighborQueueHook"),
        dict(type="EMAHook", momentum=0.1),
        dict(type="StopAfter", iteration=stop),
    ]
    cfg.resume = resume
    runner = build_runner(cfg)
    try:
        runner.train()
    except SystemExit as error:
        assert error.code == 75 and stop is not None
    else:
        assert stop is None
    (probe,) = [h for h in runner.hooks if isinstance(h, StopAfter)]
    files = sorted(work_dir.glob("*.pth"), key=lambda p: p.stat().st_mtime_ns)
    return torch.load(files[-1], weights_only=False), probe.rates


def assert_same(first, second, key=""):
    """Bitwise, of all that a run goes on from."""
    if isinstance(first, dict):
        assert list(first) == list(second), key
        for name in first:
            assert_same(first[name], second[name], f"{key}.{name}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), key
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{key}.{i}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), key
    else:
        assert first == second, key


PARTS = ("state_dict", "ema_state_dict", "optimizer", "param_schedulers")


def interrupted(data_root, folder, stops, **overrides):
    """Stop a run at iterations, go on, and compare it with one without a stop."""
    torch.manual_seed(1)
    np.random.seed(1)
    whole, rates = run(data_root, folder / "whole", **overrides)
    seed = whole["meta"]["seed"]
    seen = []
    for i, stop in enumerate([*stops, None]):
        # Only the first run's seed counts; a random one must not.
        mine = {"randomness__seed": seed} if i == 0 else {}
        parts, more = run(
            data_root, folder / "parts", stop, resume=i > 0, **overrides, **mine
        )
        seen += more
    assert seen == rates
    for part in PARTS:
        assert_same(whole[part], parts[part], part)
    assert parts["meta"]["iter"] == whole["meta"]["iter"]
    return len(list((folder / "parts").glob("stopped_at_*")))


@pytest.mark.parametrize(
    "overrides",
    [
        dict(),
        dict(BY_ITER),
        pytest.param(dict(train_dataloader__num_workers=2), marks=pytest.mark.slow),
    ],
    ids=["epochs", "iterations", "workers"],
)
def test_an_interrupted_run_ends_as_any_other(digits_root, tmp_path, overrides):
    # In the middle of an epoch, twice in one, and at the end of one; the regular
    # checkpoint that follows replaces what was saved at the stop.
    stops = [2, 3, 4] if not overrides else [6]
    assert interrupted(digits_root, tmp_path, stops, **overrides) == 0


@on_each_device
def test_the_loss_scale_goes_on(digits_root, tmp_path, wrapper, monkeypatch):
    """It grows after each third step: so it must know how many there were."""
    # Runs are compared to the last bit, which a GPU's convolutions do not promise.
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    scale = dict(init_scale=2.0**5, growth_interval=3)
    scaled = dict(optim_wrapper__type=wrapper, optim_wrapper__loss_scale=scale)
    interrupted(digits_root, tmp_path, [2, 4], **scaled)
    saved = torch.load(tmp_path / "parts/epoch_2.pth", weights_only=False)
    assert saved["optimizer"]["loss_scaler"]["scale"] == 2.0**7
    assert saved["optimizer"]["loss_scaler"]["_growth_tracker"] == 2


def on_two_ranks(rank, data_root, folder, overrides):
    torch.manual_seed(1)
    return interrupted(
        data_root,
        folder,
        [3],
        launcher="pytorch",
        train_dataloader__batch_size=8,
        **overrides,
    )


@pytest.mark.parametrize(
    "overrides",
    [dict(), pytest.param(BY_ITER, marks=pytest.mark.slow)],
    ids=["epochs", "iterations"],
)
def test_two_ranks(digits_root, tmp_path, overrides):
    queues = dict(overrides, model__head__queue__sync=False)
    run_on_ranks(2, on_two_ranks, digits_root, tmp_path, queues)


def test_workers_do_not_change_a_run(digits_root, tmp_path):
    none, _ = run(digits_root, tmp_path / "0", randomness__seed=3)
    two, _ = run(
        digits_root, tmp_path / "2", randomness__seed=3, train_dataloader__num_workers=2
    )
    assert_same(none["state_dict"], two["state_dict"])


def test_a_batch_seeds_who_reads_it():
    import pickle
    import random

    drawn = []
    batches = [SeededBatch([4, 5], (1, 0, n, 0)) for n in (7, 7, 8)]
    batches[1] = pickle.loads(pickle.dumps(batches[1]))  # as to a worker
    for batch in batches:
        assert list(batch) == [4, 5]
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_schedules_follow_the_config(digits_root, tmp_path):
    """Resumed with another length, the rates are those of a run of that length."""
    longer = dict(
        BY_ITER,
        train_cfg=dict(BY_ITER["train_cfg"], max_iters=12),
        param_scheduler=[
            BY_ITER["param_scheduler"][0],
            dict(BY_ITER["param_scheduler"][1], T_max=9, end=12),
        ],
    )
    _, rates = run(digits_root, tmp_path / "whole", randomness__seed=0, **longer)
    run(digits_root, tmp_path, **BY_ITER, randomness__seed=0)
    _, resumed = run(digits_root, tmp_path, resume=True, **longer)
    assert resumed == rates[8:]
    log = max(tmp_path.glob("*/*.log"), key=lambda path: path.stat().st_mtime_ns)
    text = log.read_text()
    assert "param_scheduler.1.T_max 5 -> 9" in text
    assert "param_scheduler.1.end 8 -> 12" in text


def test_another_epoch_length_is_refused(digits_root, tmp_path):
    run(digits_root, tmp_path)
    with pytest.raises(
        ValueError, match="batch_size 16 -> 32.*iterations per epoch 4 -> 2"
    ):
        run(digits_root, tmp_path, resume=True, train_dataloader__batch_size=32)


@pytest.mark.parametrize("algorithm", ["SNCLR", "MoCoV3"])
def test_a_new_run_from_weights_begins_its_own_schedules(
    digits_root, tmp_path, algorithm
):
    """Also that of the momentum, whose step is part of the weights."""
    kind = dict(model__type=algorithm)
    first, _ = run(digits_root, tmp_path / "first", **kind)
    assert first["state_dict"]["momentum_encoder.steps"] == 8
    path = str(next((tmp_path / "first").glob("epoch_2.pth")))
    shares = []

    @HOOKS.register_module(name="Shares", force=True)
    class Shares(Hook):
        def before_train_iter(self, runner, *_, **__):
            encoder = runner.model.momentum_encoder
            if runner.iter == 0:
                name = "momentum_encoder.module.0.conv1.weight"
                moved = first["state_dict"][name]
                assert torch.equal(runner.model.state_dict()[name], moved)
            shares.append(int(encoder.steps))

    more = dict(load_from=path, default_hooks__shares=dict(type="Shares"))
    second, _ = run(digits_root, tmp_path / "second", **kind, **more)
    assert shares == list(range(1, 9))
    encoder = second["state_dict"]["momentum_encoder.module.0.conv1.weight"]
    assert not torch.equal(encoder, second["state_dict"]["backbone.conv1.weight"])


def test_a_runner_that_is_told_to_resume(digits_root, tmp_path):
    """Runner.resume() loads without the config key ``resume``."""
    run(digits_root, tmp_path)
    cfg = tiny_config(digits_root, tmp_path / "more", train_cfg__max_epochs=4)
    runner = build_runner(cfg)
    runner.resume(str(tmp_path / "epoch_1.pth"))
    runner.train()
    assert runner.model.momentum_encoder.steps == runner.iter == 16


def next_loss(rank, data_root, work_dir, ranks, resume):
    """Train to the end of epoch 1, or one step from there; the loss of that step."""
    cfg = tiny_config(
        data_root,
        work_dir,
        launcher="pytorch" if ranks > 1 else "none",
        train_dataloader__batch_size=16 // ranks,
        train_dataloader__dataset__pipeline=FIXED_VIEWS,
        train_cfg__max_epochs=2 if resume else 1,
        # Rows of the queue are in the order of the ranks; it must not drop any here.
        model__head__queue__length=256,
        param_scheduler=[],
        **norm_free(),
    )
    cfg.custom_hooks = [
        dict(type="NeighborQueueHook"),
        dict(type="StopAfter", iteration=5),
    ]
    cfg.resume = resume
    runner = build_runner(cfg)
    if not resume:
        runner.train()
        return None
    with pytest.raises(SystemExit):
        runner.train()
    model = getattr(runner.model, "module", runner.model)
    return runner.message_hub.get_scalar("train/loss").data[0][-1], len(
        model.head.queue
    )


def test_another_number_of_ranks(digits_root, tmp_path):
    run_on_ranks(1, next_loss, digits_root, tmp_path / "1", 1, False)
    losses = {}
    for ranks in (1, 2, 4):
        folder = tmp_path / f"on-{ranks}"
        shutil.copytree(tmp_path / "1", folder)
        results = run_on_ranks(ranks, next_loss, digits_root, folder, ranks, True)
        losses[ranks] = np.mean([loss for loss, _ in results])
        assert {filled for _, filled in results} == {32 * 5}
    assert losses[2] == pytest.approx(losses[1], rel=1e-5)
    assert losses[4] == pytest.approx(losses[1], rel=1e-5)
