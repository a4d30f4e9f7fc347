import math
import sys

import pytest
import torch
import torch.nn.functional as F

from snclr_mm.models.ops import log_denominator

# The package exports the function under the module's name.
module = sys.modules[log_denominator.__module__]


def make(n, R, d, dtype=torch.float64):
    query = F.normalize(torch.randn(n, d, dtype=dtype), dim=1).requires_grad_()
    return query, F.normalize(torch.randn(R, d, dtype=dtype), dim=1)


@pytest.fixture(params=[False, True], ids=["values", "fixed shapes"])
def fixed_shapes(request, monkeypatch):
    """Both ways of counting rows, the one of CPUs and the one of GPUs."""
    count_rows = module.count_rows
    monkeypatch.setattr(
        module,
        "count_rows",
        lambda index, rows, _: count_rows(index, rows, request.param),
    )


@pytest.mark.parametrize("chunk", [64, 512, 2**20])
@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.005])
@pytest.mark.parametrize("n, N, R, d", [(1, 1, 1, 1), (3, 70, 500, 7), (8, 0, 129, 16)])
def test_equals_logsumexp(n, N, R, d, temperature, chunk, fixed_shapes, monkeypatch):
    monkeypatch.setattr(module, "CPU_CHUNK", chunk)
    query, rows = make(n, R, d)
    _, keys = make(1, N, d)
    # None, a few and many more than there are rows: repeated ones count repeatedly.
    for size in (0, R // 4, 2 * R):
        index = torch.randint(R, (2, size))
        if N + index.numel() == 0:
            continue
        value = log_denominator(query, keys, rows, index, temperature)
        everything = torch.cat([keys, rows[index.flatten()]])
        expected = (query @ everything.T / temperature).logsumexp(1)
        torch.testing.assert_close(value, expected)
        weight = torch.randn(n, dtype=torch.float64)
        torch.testing.assert_close(
            torch.autograd.grad(value @ weight, query),
            torch.autograd.grad(expected @ weight, query),
        )


def test_gradcheck(fixed_shapes):
    query, rows = make(4, 9, 5)
    keys, index = make(1, 3, 5)[1], torch.randint(9, (6,))
    assert torch.autograd.gradcheck(log_denominator, (query, keys, rows, index, 0.3))


def test_rows_left_out_of_a_whole_chunk(fixed_shapes, monkeypatch):
    monkeypatch.setattr(module, "CPU_CHUNK", 1)
    query, rows = make(2, 256, 4)
    index = torch.full((256,), 200)
    value = log_denominator(query, rows[:0], rows, index, 0.5)
    torch.testing.assert_close(value, query @ rows[200] / 0.5 + math.log(256))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_of_the_products(dtype):
    torch.manual_seed(0)
    query, rows = make(16, 3000, 64, torch.float32)
    inputs = (query, rows[:100], rows, torch.arange(100, 3000), 0.2)
    values = [log_denominator(*inputs, t) for t in (None, dtype)]
    assert values[1].dtype == torch.float32
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-3)
    exact, reduced = (torch.autograd.grad(v.sum(), query)[0] for v in values)
    assert (reduced - exact).norm() < 0.01 * exact.norm()
    assert not torch.equal(values[0], values[1])


def test_many_equal_terms_in_half_precision(fixed_shapes):
    # All terms are 1: float16 could not hold the sum of all rows.
    rows = torch.ones(100_000, 1)
    query = torch.ones(2, 1, requires_grad=True)
    index = torch.arange(100_000)
    value = log_denominator(query, rows[:0], rows, index, 1.0, torch.float16)
    torch.testing.assert_close(value, torch.full((2,), 1 + math.log(100_000)))
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), query)[0], torch.ones(2, 1)
    )


def test_without_gradient_nothing_is_kept():
    query, rows = make(3, 50, 4)
    index = torch.arange(50)
    value = log_denominator(query.detach(), rows[:5], rows, index, 0.2)
    assert value.grad_fn is None
    expected = log_denominator(query, rows[:5], rows, index, 0.2)
    torch.testing.assert_close(value, expected.detach())


def test_inference_mode():
    query, rows = make(3, 50, 4)
    expected = log_denominator(query, rows[:5], rows, torch.arange(50), 0.2)
    with torch.inference_mode():
        value = log_denominator(query, rows[:5], rows, torch.arange(50), 0.2)
    torch.testing.assert_close(value, expected.detach())
