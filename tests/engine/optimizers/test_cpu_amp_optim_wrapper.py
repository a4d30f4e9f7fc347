import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from snclr_mm.engine import CPUAmpOptimWrapper
from snclr_mm.hardware import has_fast_bfloat16


def train(cls, accumulative_counts=1, steps=40):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    target = x @ torch.randn(8, 3)
    model = nn.Linear(8, 3)
    wrapper = cls(
        torch.optim.SGD(model.parameters(), lr=0.1),
        accumulative_counts=accumulative_counts,
    )
    wrapper.initialize_count_status(model, 0, steps)
    dtypes, losses = set(), []
    for _ in range(steps):
        with wrapper.optim_context(model):
            output = model(x)
            loss = (output.float() - target).square().mean()
        dtypes.add(output.dtype)
        losses.append(float(loss))
        wrapper.update_params(loss)
    return model, dtypes, losses


@pytest.mark.parametrize("accumulative_counts", [1, 2])
def test_trains_in_bfloat16_close_to_float32(accumulative_counts):
    model, dtypes, losses = train(CPUAmpOptimWrapper, accumulative_counts)
    full, full_dtypes, full_losses = train(OptimWrapper, accumulative_counts)
    assert dtypes == {torch.bfloat16} and full_dtypes == {torch.float32}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses[-1] < losses[0] / 4
    assert losses == pytest.approx(full_losses, rel=0.05, abs=0.01)
    assert torch.allclose(model.weight, full.weight, atol=0.02)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_fast_bfloat16_is_read_from_the_cpu(capabilities, expected, monkeypatch):
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities, raising=False
    )
    assert has_fast_bfloat16() is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_fast_bfloat16()
