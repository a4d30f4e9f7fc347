import contextlib
import copy

import pytest
import torch
from helpers.amp import OVERFLOWS_ONCE, on_each_device
from helpers.ranks import run_on_ranks
from helpers.tiny import CONFIG, FIXED_VIEWS, build_runner, norm_free, tiny_config
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from snclr_mm.engine import NeighborQueueHook
from snclr_mm.models import NeighborQueue

EMA = dict(type="EMAHook")
EMA_BUFFERS = dict(type="EMAHook", update_buffers=True)
BY_ITER = dict(
    train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=8),
    param_scheduler=[],
    default_hooks__checkpoint__by_epoch=False,
    log_processor=dict(by_epoch=False),
)


@HOOKS.register_module(force=True)
class Probe(Hook):
    """Records the queue after each iteration; can spoil a step, or stop the run."""

    priority = "VERY_LOW"

    def __init__(self, nan_at=(), nan_rank=0, nan_predictor_at=None, stop_at=None):
        self.nan_at = nan_at if get_rank() == nan_rank else ()
        self.nan_predictor_at = nan_predictor_at
        self.stop_at = stop_at
        self.enqueued = []
        self.searched = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter in self.nan_at:
            data_batch["inputs"][0] = data_batch["inputs"][0] * float("nan")
        if runner.iter == self.nan_predictor_at:
            for parameter in runner.model.head.predictor.parameters():
                parameter.data.fill_(float("nan"))
        queue = queue_of(runner)
        if not hasattr(queue, "real_search"):
            queue.real_search = queue.search

            def search(keys, k):
                found = queue.real_search(keys, k)
                self.searched.append((runner.iter, k, found[0]))
                return found

            queue.search = search

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.enqueued.append(queue_of(runner).count.item())
        if runner.iter == self.stop_at:
            raise KeyboardInterrupt


def queue_of(runner):
    model = getattr(runner.model, "module", runner.model)
    (queue,) = [m for m in model.modules() if isinstance(m, NeighborQueue)]
    return queue


def read_log(work_dir):
    (path,) = work_dir.glob("*/*.log")
    return path.read_text()


def train(data_root, work_dir, hook=None, probe=None, **overrides):
    cfg = tiny_config(data_root, work_dir, **overrides)
    hook = dict(hook or {})
    before, after = hook.pop("more_hooks", ([], []))
    cfg.custom_hooks = [
        *before,
        {"type": "NeighborQueueHook", **hook},
        *after,
        {"type": "Probe", **(probe or {})},
    ]
    runner = build_runner(cfg)
    with contextlib.suppress(KeyboardInterrupt):  # Probe.stop_at
        runner.train()
    (probe,) = [h for h in runner.hooks if isinstance(h, Probe)]
    return runner, probe


def test_two_runners_keep_their_own_length(digits_root, tmp_path):
    """MMEngine's message hub is that of the Runner that was built last."""
    short = build_runner(tiny_config(digits_root, tmp_path / "short"))
    build_runner(tiny_config(digits_root, tmp_path / "long", train_cfg__max_epochs=9))
    short.train()
    average = short.model.momentum_encoder
    assert int(average.steps) == 8
    assert average.current_momentum() == pytest.approx(0, abs=1e-6)


def test_commits_both_views_after_each_step(digits_root, tmp_path):
    runner, probe = train(digits_root, tmp_path)
    assert probe.enqueued == [32 * i for i in range(1, 9)]
    queue = queue_of(runner)
    assert (len(queue), queue.pointer) == (80, 8 * 32 % 80)
    # K = 4 once the queue holds rows, not before.
    assert [k for _, k, _ in probe.searched] == [0] + [4] * 7


@pytest.mark.parametrize("algorithm", ["SNCLR", "MoCoV3"])
def test_a_batch_never_finds_itself(digits_root, tmp_path, algorithm):
    # The queue starts full of random rows, so that the first batch searches already;
    # both views are the image itself, so a key committed too early, be it of the other
    # view, is found with similarity 1.
    _, probe = train(
        digits_root,
        tmp_path,
        model__type=algorithm,
        model__head__queue__init="random",
        train_dataloader__dataset__indices=16,
        optim_wrapper__optimizer__lr=1e-12,
        train_dataloader__dataset__pipeline=[
            dict(type="LoadImage"),
            dict(type="MultiView", num_views=[2], transforms=[[]]),
            dict(type="PackInputs"),
        ],
    )
    first = torch.cat([s[:, 0] for i, k, s in probe.searched if i == 0 and k == 4])
    second = torch.cat([s[:, 0] for i, k, s in probe.searched if i == 1])
    assert len(first) == len(second) == 32
    assert first.max() < 0.99
    # One step later the same images are there: the bound above can be exceeded.
    torch.testing.assert_close(second, torch.ones(32), atol=1e-3, rtol=0)


def test_gradient_accumulation_commits_at_the_optimizer_step(digits_root, tmp_path):
    _, probe = train(digits_root, tmp_path, optim_wrapper__accumulative_counts=3)
    # 8 iterations: steps after the 3rd, the 6th, and the last.
    assert probe.enqueued == [0, 0, 96, 96, 96, 192, 192, 256]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_step_that_is_not_finite_is_not_enqueued(digits_root, tmp_path, accumulate):
    runner, probe = train(
        digits_root,
        tmp_path,
        probe=dict(nan_at=[2]),
        optim_wrapper__accumulative_counts=accumulate,
    )
    # The step is skipped, so that those after it are as good as ever.
    counts = [32, 64, 64, 96, 128, 160, 192, 224]
    assert probe.enqueued == (
        counts if accumulate == 1 else [0, 64, 64, 64, 64, 128, 128, 192]
    )
    assert queue_of(runner).features.isfinite().all()


def test_finite_keys_of_a_step_with_a_loss_that_is_not_finite(digits_root, tmp_path):
    # The keys do not pass through the predictor, so they stay finite in this step.
    unsaved = dict(type="CheckpointHook", interval=-1, save_last=False)
    _, probe = train(
        digits_root,
        tmp_path,
        probe=dict(nan_predictor_at=2),
        default_hooks__checkpoint=unsaved,
    )
    assert probe.enqueued == [32, 64] + [64] * 6


def test_without_neighbors_nothing_is_enqueued(digits_root, tmp_path):
    _, probe = train(digits_root, tmp_path, model__head__num_neighbors=0)
    assert probe.enqueued == [0] * 8
    assert "neighbors are used" not in read_log(tmp_path)


def test_a_diverged_run_ends(digits_root, tmp_path):
    with pytest.raises(RuntimeError, match="3 steps in a row.*max_skipped_steps"):
        train(
            digits_root,
            tmp_path,
            hook=dict(max_skipped_steps=3),
            probe=dict(nan_at=[2, 3, 4]),
        )


@pytest.mark.parametrize(
    "hook, first",
    [
        (dict(), 1),
        (dict(start_epoch=1), 4),
        (dict(min_fill=65), 3),
        (dict(min_fill=1.0), 3),
        (dict(min_fill=0.5, start_epoch=1), 4),
    ],
)
@pytest.mark.parametrize("init", ["empty", "random"])
def test_warm_up(digits_root, tmp_path, hook, first, init):
    if init == "random" and not hook:
        first = 0  # random rows can be found at once, as in the authors' code
    runner, probe = train(
        digits_root, tmp_path, hook=hook, model__head__queue__init=init
    )
    assert [k for _, k, _ in probe.searched] == [0] * first + [4] * (8 - first)
    logged = runner.message_hub.get_scalar("train/positiveness_max")
    assert len(logged.data[0]) == 8 - first


def test_log(digits_root, tmp_path):
    runner, _ = train(digits_root, tmp_path)
    fill = runner.message_hub.get_scalar("train/queue_fill").data[0]
    assert fill.tolist() == pytest.approx([0, 0.4, 0.8, 1, 1, 1, 1, 1])
    text = read_log(tmp_path)
    assert "warm-up, the loss is plain InfoNCE" in text
    assert "neighbors are used from now on" in text
    assert "queue_fill: " in text and "neighbor_similarity: " in text


def test_stop_and_resume(digits_root, tmp_path):
    whole, _ = train(digits_root, tmp_path / "whole", train_cfg__max_epochs=3)
    train(
        digits_root, tmp_path / "parts", train_cfg__max_epochs=3, probe={"stop_at": 5}
    )
    saved = torch.load(tmp_path / "parts/epoch_1.pth", weights_only=False)["state_dict"]

    class Check(Exception):
        pass

    cfg = tiny_config(digits_root, tmp_path / "parts", train_cfg__max_epochs=3)
    cfg.resume = True
    runner = build_runner(cfg)
    original = runner.call_hook

    def call_hook(name, **kwargs):
        if name == "before_train_iter" and runner.iter == 4:
            queue = queue_of(runner)
            assert torch.equal(queue.features, saved["head.queue.features"])
            assert queue.count == saved["head.queue.count"] == 128
            assert (queue.pointer, len(queue)) == (128 % 80, 80)
        original(name, **kwargs)

    runner.call_hook = call_hook
    runner.train()
    assert runner.iter == 12
    # The augmentations are drawn anew, so only the bookkeeping equals the whole run.
    assert queue_of(runner).count == queue_of(whole).count


def test_checkpoint_without_a_queue_loads_with_a_warning(digits_root, tmp_path):
    train(digits_root, tmp_path)
    path = tmp_path / "epoch_2.pth"
    checkpoint = torch.load(path, weights_only=False)
    for name in ("features", "count"):
        del checkpoint["state_dict"][f"head.queue.{name}"]
    torch.save(checkpoint, path)
    _, probe = train(
        digits_root, tmp_path / "new", resume=True, load_from=str(path),
        train_cfg__max_epochs=3,
    )  # fmt: skip
    assert probe.enqueued == [32, 64, 96, 128]
    text = read_log(tmp_path / "new")
    assert "holds no neighbor queue (head.queue.features)" in text


def test_checkpoint_with_a_queue_of_another_size_raises(digits_root, tmp_path):
    train(digits_root, tmp_path)
    with pytest.raises(ValueError, match="length 80 and width 8, .* length 96 and wid"):
        train(
            digits_root,
            tmp_path / "new",
            resume=True,
            load_from=str(tmp_path / "epoch_2.pth"),
            model__head__queue__length=96,
        )


@pytest.mark.parametrize(
    "model",
    [
        dict(),
        dict(type="MoCoV3"),
        dict(head=dict(_delete_=True, type="NearestNeighborHead")),
    ],
    ids=["SNCLR", "MoCoV3", "NearestNeighborHead"],
)
def test_a_queue_without_a_hook_raises(digits_root, tmp_path, model):
    cfg = tiny_config(digits_root, tmp_path)
    head = copy.deepcopy(cfg.model.head)
    cfg.merge_from_dict(dict(model=model))
    if "head" in model:
        cfg.model.head.update(predictor=head.predictor, queue=head.queue)
    cfg.custom_hooks = []
    with pytest.raises(RuntimeError, match="custom_hooks=.*NeighborQueueHook"):
        build_runner(cfg).train()


@pytest.mark.parametrize(
    "algorithm, branch", [("MoCoV3", "momentum_encoder"), ("BYOL", "target_net")]
)
def test_finds_the_queue_in_stock_algorithms(digits_root, tmp_path, algorithm, branch):
    runner, probe = train(digits_root, tmp_path, model__type=algorithm)
    assert type(runner.model).__name__ == algorithm
    assert hasattr(runner.model, branch)
    assert probe.enqueued == [32 * i for i in range(1, 9)]
    # What SNCLR returns for the log, the hook writes for the others.
    hub = runner.message_hub
    assert len(hub.get_scalar("train/queue_fill").data[0]) == 8
    assert len(hub.get_scalar("train/positiveness_mean").data[0]) > 0


def test_a_model_without_a_queue_warns(digits_root, tmp_path):
    cfg = tiny_config(digits_root, tmp_path)
    predictor = cfg.model.head.predictor
    cfg.model.type = "MoCoV3"
    cfg.model.head = dict(
        type="MoCoV3Head", predictor=predictor, loss=dict(type="CrossEntropyLoss")
    )
    build_runner(cfg).train()
    assert "no NeighborQueue" in read_log(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(start_epoch=-1), "start_epoch=-1 .*custom_hooks"),
        (dict(min_fill=-1), "min_fill=-1"),
        (dict(min_fill=1.5), r"min_fill=1\.5 .* the share"),
        (dict(max_skipped_steps=0), "max_skipped_steps=0"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        NeighborQueueHook(**change)


def test_min_fill_beyond_the_queue(digits_root, tmp_path):
    with pytest.raises(ValueError, match=r"min_fill=81 .*head\.queue\.length=80"):
        train(digits_root, tmp_path, hook=dict(min_fill=81))


def train_rank(rank, data_root, work_dir, world_size, overrides, **hooks):
    runner, probe = train(
        data_root,
        work_dir,
        **hooks,
        launcher="pytorch" if world_size > 1 else "none",
        train_dataloader__batch_size=12 // world_size,
        train_dataloader__dataset__indices=48,
        train_dataloader__sampler__shuffle=False,
        # The same views on every rank, so that runs can be compared.
        train_dataloader__dataset__pipeline=FIXED_VIEWS,
        # Batch statistics would differ between 12 images and 2 x 6.
        **norm_free(),
        **overrides,
    )
    model = getattr(runner.model, "module", runner.model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return state, probe.enqueued


@pytest.mark.parametrize(
    "attention, objective, accumulate",
    [("linear", "log_of_sum", 1), ("identity", "sum_of_logs", 2)],
)
def test_training_does_not_depend_on_the_number_of_ranks(
    digits_root, tmp_path, attention, objective, accumulate
):
    sgd = dict(
        optim_wrapper__optimizer=dict(_delete_=True, type="SGD", lr=0.1),
        optim_wrapper__accumulative_counts=accumulate,
        model__head__attention__projection=attention,
        model__head__objective=objective,
        model__head__queue__length=96,  # whole batches of 12
    )
    args = (digits_root, tmp_path / "1", 1, sgd)
    ((one, enqueued),) = run_on_ranks(1, train_rank, *args)
    assert ("head.attention.f_1.weight" in one) == (attention == "linear")
    for world_size in (2, 3):
        args = (digits_root, tmp_path / str(world_size), world_size, sgd)
        results = run_on_ranks(world_size, train_rank, *args)
        for state, counts in results:
            assert counts == enqueued
            # DistributedSampler deals images out in turn, so one global batch holds
            # the same images, in another order; the queue's rows follow that order.
            for name, value in state.items():
                if name == "head.queue.features":
                    order = batch_order(world_size, rows=len(value))
                    value = value[order]
                torch.testing.assert_close(
                    value, one[name], rtol=1e-3, atol=2e-4, msg=name
                )


def batch_order(world_size, rows):
    """Queue rows of ``world_size`` ranks in the order of one rank."""
    image = torch.arange(12)
    order = image % world_size * (12 // world_size) + image // world_size
    return (torch.arange(0, rows, 12)[:, None] + order).flatten()


def train_with_one_bad_rank(rank, data_root, work_dir, sync):
    overrides = dict(model__head__queue__sync=sync, model__head__queue__length=200)
    probe = dict(nan_at=[2], nan_rank=1)
    return train_rank(rank, data_root, work_dir, 2, overrides, probe=probe)[1]


@pytest.mark.parametrize("sync", [True, False])
def test_one_bad_rank_keeps_the_step_out_on_all(digits_root, tmp_path, sync):
    args = (digits_root, tmp_path, sync)
    first, second = run_on_ranks(2, train_with_one_bad_rank, *args)
    rows = 24 if sync else 12
    assert first == second == [rows * n for n in (1, 2, 2, 3, 4, 5, 6, 7)]


def save_and_resume_rank(rank, data_root, work_dir, hooks, overrides, file):
    released = dict(
        model__head__queue__sync=False,
        model__head__queue__init="random",
        **overrides,
    )

    def run(work_dir, **more):
        cfg_hooks = dict(hook=dict(more_hooks=hooks))
        return train_rank(
            rank, data_root, work_dir, 2, {**released, **more}, **cfg_hooks
        )

    saved, _ = run(work_dir)
    resumed, _ = run(
        work_dir / "new",
        resume=True,
        load_from=str(work_dir / file),
    )
    return saved["head.queue.features"], resumed["head.queue.features"]


@pytest.mark.parametrize(
    "before, after, overrides, file",
    [
        ([], [], {}, "epoch_2.pth"),
        ([EMA], [], {}, "epoch_2.pth"),
        ([], [EMA], {}, "epoch_2.pth"),
        ([], [], BY_ITER, "iter_8.pth"),
    ],
    ids=["epoch", "EMAHook first", "EMAHook last", "iter"],
)
def test_a_queue_per_rank_survives_resume(
    digits_root, tmp_path, before, after, overrides, file
):
    (first, first_back), (second, second_back) = run_on_ranks(
        2, save_and_resume_rank, digits_root, tmp_path, (before, after), overrides, file
    )
    assert not torch.allclose(first, second)
    assert torch.equal(first, first_back)
    assert torch.equal(second, second_back)


@pytest.mark.parametrize(
    "ema",
    [
        EMA_BUFFERS,
        dict(EMA_BUFFERS, priority="LOW"),  # after NeighborQueueHook
        dict(EMA_BUFFERS, ema_type="ForeachCosineEMA"),
    ],
    ids=["before", "after", "foreach"],
)
def test_an_averaged_model_is_saved_with_the_queue(digits_root, tmp_path, ema):
    runner, _ = train(digits_root, tmp_path, hook=dict(more_hooks=([ema], [])))
    checkpoint = torch.load(tmp_path / "epoch_2.pth", weights_only=False)
    queue = queue_of(runner)
    averaged = checkpoint["state_dict"]["backbone.conv1.weight"]
    assert not torch.equal(averaged, runner.model.backbone.conv1.weight)
    for state, prefix in (("state_dict", ""), ("ema_state_dict", "module.")):
        rows = checkpoint[state][f"{prefix}head.queue.features"]
        assert torch.equal(rows, queue.features)
        assert checkpoint[state][f"{prefix}head.queue.count"] == queue.count == 256
    torch.testing.assert_close(queue.features.norm(dim=1), torch.ones(80))


@pytest.mark.parametrize(
    "hook, overrides, message",
    [
        (dict(start_epoch=2), {}, r"start_epoch=2 .*max_epochs=2.*between 0 and 1"),
        (dict(start_epoch=1), BY_ITER, r"start_epoch=1 .*IterBasedTrainLoop counts no"),
    ],
    ids=["epochs", "iterations"],
)
def test_a_warm_up_that_never_ends(digits_root, tmp_path, hook, overrides, message):
    with pytest.raises(ValueError, match=message):
        train(digits_root, tmp_path, hook=hook, **overrides)


def test_an_error_in_training_leaves_nothing_behind(digits_root, tmp_path):
    cfg = tiny_config(digits_root, tmp_path)
    cfg.custom_hooks = [
        dict(type="NeighborQueueHook"),
        dict(type="NeighborAgeHook", interval=1),
        dict(type="PositivenessEntropyHook", interval=1),
        dict(type="CollapseHook", interval=1, num_batches=1),
    ]
    runner = build_runner(cfg)
    model, queue = runner.model, queue_of(runner)
    attempts = []

    def broken(keys, k):
        attempts.append(k)
        raise OSError("the device is gone")

    queue.search = broken
    with pytest.raises(OSError, match="the device is gone"):
        runner.train()
    assert attempts
    assert queue.num_staged == 0
    assert model.head.search_observers == []
    assert not runner.optim_wrapper.optimizer._optimizer_step_post_hooks
    for module in model.modules():
        assert not module._forward_hooks


def bad_rank_without_neighbors(rank, data_root, work_dir):
    """Rank 1's loss is NaN from the start; nothing is staged, as K = 0."""
    overrides = dict(model__head__num_neighbors=0)
    bad = dict(nan_at=[0, 1], nan_rank=1)
    hooks = dict(hook=dict(max_skipped_steps=2), probe=bad)
    try:
        train_rank(rank, data_root, work_dir, 2, overrides, **hooks)
    except RuntimeError as error:
        return str(error)


def test_all_ranks_end_a_diverged_run_alike(digits_root, tmp_path):
    args = (digits_root, tmp_path)
    first, second = run_on_ranks(2, bad_rank_without_neighbors, *args)
    assert first == second
    assert "2 steps in a row" in first


def save_best_rank(rank, data_root, work_dir):
    """A queue per rank, and a best checkpoint written beside the regular ones."""
    cfg = Config.fromfile(CONFIG)
    small = dict(data_root=str(data_root), indices=24)
    cfg.val_dataloader.dataset.update(small)
    cfg.val_cfg.bank_dataloader.dataset.update(small)
    validation = dict(
        **{name: cfg[name] for name in ("val_dataloader", "val_evaluator", "val_cfg")},
        default_hooks__checkpoint__save_best="auto",
        model__head__queue__sync=False,
    )
    state, _ = train_rank(rank, data_root, work_dir, 2, validation)
    return state["head.queue.features"]


def test_a_best_checkpoint_leaves_the_regular_one_its_queues(digits_root, tmp_path):
    first, second = run_on_ranks(2, save_best_rank, digits_root, tmp_path)
    (best,) = tmp_path.glob("best_*.pth")
    for path in (tmp_path / "epoch_2.pth", tmp_path / "epoch_1.pth", best):
        saved = torch.load(path, weights_only=False)["neighbor_queue_ranks"]
        assert saved["head.queue"]["features"].shape == (2, *first.shape)
        assert not torch.equal(*saved["head.queue"]["features"])
    last = torch.load(tmp_path / "epoch_2.pth", weights_only=False)
    rows = last["neighbor_queue_ranks"]["head.queue"]["features"]
    assert torch.equal(rows, torch.stack([first, second]))


@pytest.mark.parametrize("fused", [False, True])
@on_each_device
def test_step_that_the_loss_scaler_skips(digits_root, tmp_path, wrapper, fused):
    # A fused optimizer's step() is called also for a step that it then skips.
    runner, probe = train(
        digits_root,
        tmp_path,
        optim_wrapper__type=wrapper,
        optim_wrapper__loss_scale=OVERFLOWS_ONCE,
        optim_wrapper__optimizer__fused=fused,
    )
    assert probe.enqueued == [0, 32, 64, 96, 128, 160, 192, 224]
    # A skipped step leaves the weights alone: the optimizer has not counted it.
    (state, *_) = runner.optim_wrapper.optimizer.state.values()
    assert state["step"] == 7
