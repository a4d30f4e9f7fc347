import helpers.amp  # noqa: F401  (CPUFloat16OptimWrapper)
import pytest
import torch
from helpers.ranks import run_on_ranks
from helpers.tiny import build_runner, tiny_config
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from snclr_mm.engine import StepGuardHook

BAD = 3


@HOOKS.register_module(force=True)
class Spoil(Hook):
    """Spoils one step, and keeps the state from before and after it."""

    priority = "VERY_LOW"

    def __init__(self, kind, rank=0, first=BAD):
        self.kind, self.rank, self.first = kind, rank, first
        self.states = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == BAD and runner.rank == self.rank:
            self._spoil(runner, data_batch["inputs"])
        if runner.iter == self.first:
            self.states["before"] = state_of(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == BAD:
            self.states["after"] = state_of(runner)
            if self.kind == "loss":
                runner.model.module.head.loss_weight = 1.0

    def _spoil(self, runner, views):
        if self.kind == "loss":  # of this rank alone; features are as ever
            runner.model.module.head.loss_weight = float("nan")
        elif self.kind in ("nan", "inf"):
            views[0] = views[0].float()
            views[0][1] = float(self.kind)
        elif self.kind == "gradient":
            weight = runner.model.backbone.conv1.weight

            def spoil(grad):
                handle.remove()
                grad = grad.clone()
                grad[0, 0, 0, 0] = float("inf")
                return grad

            handle = weight.register_hook(spoil)


def state_of(runner):
    """Copies of all tensors of the model, the optimizer and the averaged model."""
    (ema,) = [h for h in runner.hooks if type(h).__name__ == "EMAHook"]
    model = getattr(runner.model, "module", runner.model)
    state = {f"model.{k}": v.clone() for k, v in model.state_dict().items()}
    optimizer = runner.optim_wrapper.optimizer
    for i, group in enumerate(optimizer.param_groups):
        for j, p in enumerate(group["params"]):
            for key, value in optimizer.state.get(p, {}).items():
                state[f"optimizer.{i}.{j}.{key}"] = torch.as_tensor(value).clone()
    averaged = ema.ema_model.module.state_dict()
    return state | {f"ema.{k}": v.clone() for k, v in averaged.items()}


def train(data_root, work_dir, kind, rank=0, **overrides):
    cfg = tiny_config(data_root, work_dir, **overrides)
    accumulated = cfg.optim_wrapper.get("accumulative_counts", 1)
    cfg.custom_hooks = [
        dict(type="NeighborQueueHook"),
        dict(type="EMAHook", update_buffers=True),
        # A step begins with the first of the batches that are accumulated for it.
        dict(type="Spoil", kind=kind, rank=rank, first=BAD + 1 - accumulated),
    ]
    runner = build_runner(cfg)
    runner.train()
    (spoil,) = [h for h in runner.hooks if isinstance(h, Spoil)]
    log = next(work_dir.glob("*/*.log")).read_text()
    return runner, spoil.states, log


def changed(states):
    before, after = states["before"], states["after"]
    assert all(value.isfinite().all() for value in after.values())
    return {name for name in after if not torch.equal(before[name], after[name])}


SCALED = dict(
    optim_wrapper__type="CPUFloat16OptimWrapper",
    optim_wrapper__loss_scale=dict(init_scale=2.0),
)
FUSED = dict(optim_wrapper__optimizer=dict(_delete_=True, type="AdamW", fused=True))


@pytest.mark.parametrize(
    "kind, overrides",
    [
        ("nan", {}),
        ("inf", dict(optim_wrapper__clip_grad=dict(max_norm=1.0))),
        ("gradient", FUSED),
        ("nan", dict(model__type="MoCoV3")),
        ("nan", dict(model__type="BYOL")),
        ("nan", dict(optim_wrapper__accumulative_counts=2)),
        ("nan", dict(SCALED, **FUSED)),
        ("gradient", SCALED),
    ],
    ids=["SNCLR", "clipped", "fused", "MoCoV3", "BYOL", "accumulate", "scaled fused",
         "scaled"],
)  # fmt: skip
def test_one_bad_step(digits_root, tmp_path, kind, overrides):
    runner, states, log = train(digits_root, tmp_path, kind, **overrides)
    names = changed(states)
    # Only what follows the online weights, whatever the batch, has moved on: the
    # momentum branch's weights, and the averaged model.
    branch = (
        "model.target_net" if "BYOL" in str(overrides) else "model.momentum_encoder"
    )
    allowed = (f"{branch}.", "ema.")
    assert all(name.startswith(allowed) for name in names), names
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert not {n for n in names if n.endswith(statistics) and n.startswith("model.")}
    assert all(p.isfinite().all() for p in runner.model.state_dict().values())
    assert runner.message_hub.get_info("skipped_steps") == 1
    assert f"Step {BAD + 1} was skipped on all ranks" in log
    if kind != "gradient":
        _, _, listed = log.partition("pixels are not finite in (index, path) [(")
        assert int(listed.split(",")[0]) in range(64)


@pytest.mark.parametrize(
    "dtype, value, kept",
    [
        (torch.float32, 1e18, True),
        (torch.float32, 1e20, False),  # squared it is infinity
        (torch.float16, 6e4, True),
        (torch.float16, torch.inf, False),
        (torch.bfloat16, torch.nan, False),
    ],
)
def test_large_gradients(dtype, value, kept):
    params = [torch.nn.Parameter(torch.zeros(3, dtype=dtype)) for _ in range(2)]
    optimizer = torch.optim.SGD(params, lr=1e-3)
    guard = StepGuardHook()
    guard._loss_is_finite = True
    params[0].grad = torch.full_like(params[0], value)
    guard._decide(optimizer, (), {})
    assert guard.kept == kept
    assert (params[0].grad is not None) == kept


def one_bad_rank(rank, data_root, work_dir, kind, overrides):
    runner, states, log = train(
        data_root,
        work_dir,
        kind,
        rank=1,
        launcher="pytorch",
        train_dataloader__batch_size=8,
        **overrides,
    )
    return changed(states), log, runner.message_hub.get_info("skipped_steps")


@pytest.mark.parametrize(
    "kind, overrides, image",
    [
        ("nan", {}, "pixels are not finite"),
        # The scaler does not call the optimizer, so the ranks agree on nothing there.
        ("loss", SCALED, "images ["),
    ],
)
def test_one_bad_rank(digits_root, tmp_path, kind, overrides, image):
    results = run_on_ranks(2, one_bad_rank, digits_root, tmp_path, kind, overrides)
    for names, log, skipped in results:
        assert all(n.startswith(("model.momentum_encoder.", "ema.")) for n in names)
        assert skipped == 1
        assert "rank 0: images [" in log
        assert f"rank 1: {image}" in log


def test_two_flags_are_one_collective(digits_root, tmp_path, monkeypatch):
    """The queue asks the ranks nothing that the guard has asked."""
    from snclr_mm.engine.hooks import step_guard_hook
    from snclr_mm.models import neighbor_queue

    asked = []
    monkeypatch.setattr(
        step_guard_hook, "all_reduce", lambda flag, op: asked.append(op)
    )
    monkeypatch.setattr(neighbor_queue, "all_reduce", lambda *_: asked.append("queue"))
    train(digits_root, tmp_path, "none")
    assert asked == ["min"] * 8
