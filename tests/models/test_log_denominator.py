import math

import pytest
import torch
import torch.nn.functional as F

from snclr_mm.models import log_denominator as module
from snclr_mm.models.log_denominator import log_denominator


def make(n, R, d, dtype=torch.float64):
    query = F.normalize(torch.randn(n, d, dtype=dtype), dim=1).requires_grad_()
    return query, F.normalize(torch.randn(R, d, dtype=dtype), dim=1)


@pytest.mark.parametrize("chunk", [64, 512, 2**20])
@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.005])
@pytest.mark.parametrize("n, R, d", [(1, 1, 1), (3, 500, 7), (8, 129, 16)])
def test_equals_logsumexp(n, R, d, temperature, chunk, monkeypatch):
    monkeypatch.setattr(module, "CPU_CHUNK", chunk)
    query, rows = make(n, R, d)
    index = torch.randint(R, (2 * R,))
    log_count = torch.randint(5, (2 * R,)).double().log()  # -inf where it is 0
    log_count[0] = 0
    for arguments, logits in [
        ((), query @ rows.T / temperature),
        ((index,), query @ rows[index].T / temperature),
        ((index, log_count), query @ rows[index].T / temperature + log_count),
        (
            (None, log_count[:R]),
            query @ rows.T / temperature + log_count[:R],
        ),
    ]:
        value = log_denominator(query, rows, temperature, *arguments)
        expected = logits.logsumexp(1)
        torch.testing.assert_close(value, expected)
        weight = torch.randn(n, dtype=torch.float64)
        torch.testing.assert_close(
            torch.autograd.grad(value @ weight, query),
            torch.autograd.grad(expected @ weight, query),
        )


def test_gradcheck():
    query, rows = make(4, 9, 5)
    assert torch.autograd.gradcheck(log_denominator, (query, rows, 0.3))


def test_rows_left_out_of_a_whole_chunk(monkeypatch):
    monkeypatch.setattr(module, "CPU_CHUNK", 1)
    query, rows = make(2, 256, 4)
    log_count = torch.full((256,), -torch.inf, dtype=torch.float64)
    log_count[200] = 0
    value = log_denominator(query, rows, 0.5, None, log_count)
    torch.testing.assert_close(value, query @ rows[200] / 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_of_the_products(dtype):
    torch.manual_seed(0)
    query, rows = make(16, 3000, 64, torch.float32)
    values = [log_denominator(query, rows, 0.2, dtype=t) for t in (None, dtype)]
    assert values[1].dtype == torch.float32
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-3)
    exact, reduced = (torch.autograd.grad(v.sum(), query)[0] for v in values)
    assert (reduced - exact).norm() < 0.01 * exact.norm()
    assert not torch.equal(values[0], values[1])


def test_many_equal_terms_in_half_precision():
    # All terms are 1: float16 could not hold the sum of all rows.
    rows = torch.ones(100_000, 1)
    query = torch.ones(2, 1, requires_grad=True)
    value = log_denominator(query, rows, 1.0, dtype=torch.float16)
    torch.testing.assert_close(value, torch.full((2,), 1 + math.log(100_000)))
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), query)[0], torch.ones(2, 1)
    )


def test_without_gradient_nothing_is_kept():
    query, rows = make(3, 50, 4)
    value = log_denominator(query.detach(), rows, 0.2)
    assert value.grad_fn is None
    torch.testing.assert_close(value, log_denominator(query, rows, 0.2).detach())
