from copy import deepcopy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.engine.optimizers import LARS
from torch import nn

from snclr_mm.engine import ForeachLARS

# The recipe's: batch norm and biases are updated as by SGD, without weight decay.
PARAMWISE = dict(
    custom_keys={
        "bn": dict(decay_mult=0, lars_exclude=True),
        "bias": dict(decay_mult=0, lars_exclude=True),
        "predictor": dict(lr_mult=0.1),
    }
)


def make_model(seed=0):
    torch.manual_seed(seed)
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "bn": nn.BatchNorm2d(4),
            "fc": nn.Linear(4, 5),
            "predictor": nn.Linear(5, 2),
            "unused": nn.Linear(2, 2),
            "late": nn.Linear(2, 2),
            "frozen": nn.Linear(2, 2).requires_grad_(False),
            "zero": nn.Linear(3, 3, bias=False),
        }
    )
    nn.init.zeros_(model["zero"].weight)  # no trust ratio
    return model.to(memory_format=torch.channels_last)


def optimizer_of(kind, model, paramwise=PARAMWISE, **options):
    options = dict(dict(lr=0.3, momentum=0.9, weight_decay=1e-2), **options)
    cfg = dict(optimizer=dict(type=kind, **options), paramwise_cfg=paramwise)
    return build_optim_wrapper(model, cfg).optimizer


def train(model, optimizer, steps, start=0):
    """Each parameter but one has a gradient, one of them from step 2 on."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for name, p in model.named_parameters():
            grad = torch.randn(p.shape, generator=generator)
            late = name.startswith("late") and step < 2
            if p.requires_grad and not late and not name.startswith("unused"):
                p.grad = grad * (not name.startswith("conv.bias"))
        for group in optimizer.param_groups:
            group["lr"] *= 0.9  # as a schedule does
        optimizer.step()


def assert_same(ours, stock):
    for (name, p), q in zip(ours.named_parameters(), stock.parameters(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(nesterov=True),
        dict(dampening=0.3),
        dict(momentum=0.0),
        dict(weight_decay=0.0, eta=0.02, eps=0.1),
    ],
    ids=str,
)
@pytest.mark.parametrize("paramwise", [PARAMWISE, None], ids=["paramwise", "plain"])
def test_equals_stock_to_the_last_bit(options, paramwise):
    models, optimizers = [], []
    for kind in ("ForeachLARS", "LARS"):
        model = make_model()
        before = [p.detach().clone() for p in model.parameters()]
        optimizer = optimizer_of(kind, model, paramwise, **options)
        train(model, optimizer, 5)
        models.append(model)
        optimizers.append(optimizer)
    assert type(optimizers[0]) is ForeachLARS
    assert type(optimizers[1]) is LARS
    assert_same(*models)
    named = zip(before, models[0].named_parameters(), strict=True)
    kept = {name for b, (name, p) in named if torch.equal(b, p)}
    expected = {f"{m}.{p}" for m in ("unused", "frozen") for p in ("weight", "bias")}
    if paramwise or options.get("weight_decay") == 0:
        expected.add("conv.bias")  # its gradient is 0
    assert kept == expected
    state, expected = (optimizer.state_dict() for optimizer in optimizers)
    assert state["param_groups"] == expected["param_groups"]
    assert state["state"].keys() == expected["state"].keys()
    for index, value in expected["state"].items():
        assert state["state"][index].keys() == value.keys() == {"momentum_buffer"}
        assert torch.equal(
            state["state"][index]["momentum_buffer"], value["momentum_buffer"]
        )


@pytest.mark.parametrize(
    "first, second", [("ForeachLARS", "LARS"), ("LARS", "ForeachLARS")]
)
def test_resumes_from_stock_and_the_other_way(first, second):
    model, resumed = make_model(), make_model(seed=1)
    optimizer = optimizer_of(first, model)
    train(model, optimizer, 1)
    other = optimizer_of(second, resumed)
    resumed.load_state_dict(model.state_dict())
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    train(model, optimizer, 3, start=1)
    train(resumed, other, 3, start=1)
    assert_same(resumed, model)


def test_closure_and_no_gradients():
    weight = nn.Parameter(torch.ones(3))
    optimizer = ForeachLARS([weight], lr=0.1)
    optimizer.step()  # nothing to do
    assert torch.equal(weight, torch.ones(3))

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3
    expected = 1 - 0.1 * 0.001 * 3**0.5 / (2 * 3**0.5) * 2
    torch.testing.assert_close(weight.detach(), torch.full((3,), expected))


def test_half_precision_parameters():
    results = []
    for kind in (ForeachLARS, LARS):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(8, dtype=d)) for d in DTYPES for _ in "ab"]
        optimizer = kind(params, lr=0.5, momentum=0.9)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
        results.append(params)
    for ours, stock in zip(*results, strict=True):
        assert torch.equal(ours, stock)


DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def test_reads_nothing_from_the_device(monkeypatch):
    model = make_model()
    optimizer = optimizer_of("ForeachLARS", model)
    train(model, optimizer, 2)
    for name in ("__bool__", "__float__", "item", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, None)
    optimizer.step()


@pytest.mark.gpu
def test_equals_stock_on_a_gpu_without_waiting():
    models = [make_model().cuda() for _ in "ab"]
    optimizers = [
        optimizer_of(kind, model)
        for kind, model in zip(("ForeachLARS", "LARS"), models, strict=True)
    ]
    for _ in range(4):
        for p, q in zip(*(model.parameters() for model in models), strict=True):
            if p.requires_grad:
                p.grad = torch.randn_like(p)
                q.grad = p.grad.clone()
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizers[0].step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        optimizers[1].step()
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(p, q)
