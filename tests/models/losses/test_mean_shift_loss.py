import pytest
import torch
import torch.nn.functional as F
from helpers.naive import naive_mean_shift
from hypothesis import given
from hypothesis import strategies as st
from mmpretrain.registry import MODELS

from snclr_mm.models.losses import mean_shift_loss

MIXES = (None, 0.0, 0.3, 1.0)


def make(n, K, d):
    neighbors = F.normalize(torch.randn(n, K, d).double(), dim=-1)
    return torch.randn(n, d).double(), torch.randn(n, d).double(), neighbors


@given(
    n=st.integers(1, 6),
    K=st.integers(0, 6),
    d=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    mix=st.none() | st.floats(0, 1),
)
def test_generated_inputs_equal_naive_loop(n, K, d, seed, mix):
    torch.manual_seed(seed)
    inputs = make(n, K, d)
    torch.testing.assert_close(
        mean_shift_loss(*inputs, mix), naive_mean_shift(*inputs, mix)
    )


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("n, K, d", [(1, 1, 1), (4, 0, 3), (7, 3, 16), (9, 30, 8)])
def test_equals_naive_loop_and_gradcheck(n, K, d, mix):
    query, key, neighbors = make(n, K, d)
    loss = mean_shift_loss(query, key, neighbors, mix)
    torch.testing.assert_close(loss, naive_mean_shift(query, key, neighbors, mix))
    if K < 30:
        query.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda z: mean_shift_loss(z, key, neighbors, mix), query
        )


def test_limits():
    query, key, neighbors = make(6, 4, 8)
    # The stock one, as BYOL has it.
    byol = MODELS.build(
        dict(type="CosineSimilarityLoss", shift_factor=2.0, scale_factor=2.0)
    )
    expected = byol(query, key)
    none = neighbors[:, :0]
    torch.testing.assert_close(mean_shift_loss(query, key, none), expected)
    torch.testing.assert_close(mean_shift_loss(query, key, none, 0.7), 2 * expected)
    torch.testing.assert_close(mean_shift_loss(query, key, neighbors, 0), 2 * expected)
    # λ = 1 at K = 1: BYOL's loss and that of the neighbor.
    nearest = neighbors[:, :1]
    torch.testing.assert_close(
        mean_shift_loss(query, key, nearest, 1), expected + byol(query, nearest[:, 0])
    )


def test_a_drawn_share_is_between_both_ends():
    inputs = make(6, 4, 8)
    ends = [mean_shift_loss(*inputs, mix).item() for mix in (0, 1)]
    drawn = {mean_shift_loss(*inputs, "uniform").item() for _ in range(5)}
    assert len(drawn) == 5
    assert all(min(ends) <= loss <= max(ends) for loss in drawn)


def test_directions_and_views_are_means():
    query, key = torch.randn(2, 6, 5).double(), torch.randn(2, 3, 5).double()
    neighbors = F.normalize(torch.randn(2, 3, 4, 5).double(), dim=-1)
    for mix in (None, 0.4):
        loss = mean_shift_loss(query, key, neighbors, mix)
        for d in range(2):
            views = [
                naive_mean_shift(view, key[d], neighbors[d], mix)
                for view in query[d].split(3)
            ]
            torch.testing.assert_close(loss[d], sum(views) / 2)


def test_half_precision_and_constants():
    query, key, neighbors = (x.half().requires_grad_() for x in make(4, 3, 8))
    with torch.autocast("cpu", torch.bfloat16):
        loss = mean_shift_loss(query, key, neighbors, 0.5)
    assert loss.dtype == torch.float32
    loss.backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None and neighbors.grad is None


@pytest.mark.parametrize("mix", [-0.1, 1.1, float("nan"), "normal"])
def test_bad_mix(mix):
    message = rf"model\.head\.mix={mix!r} must be between 0 and 1 or 'uniform'"
    with pytest.raises(ValueError, match=message):
        mean_shift_loss(*make(4, 3, 8), mix)


def test_bad_shapes():
    query, key, neighbors = make(4, 3, 8)
    with pytest.raises(ValueError, match=r"\[3, 8\] and key \[4, 8\]"):
        mean_shift_loss(query[:3], key, neighbors)
    with pytest.raises(ValueError, match=r"neighbors \[2, 3, 8\].*\[4, 8\]"):
        mean_shift_loss(query, key, neighbors[:2])
