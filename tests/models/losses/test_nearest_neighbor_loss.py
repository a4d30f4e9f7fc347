import pytest
import torch
from helpers.naive import naive_nearest_neighbor
from helpers.ranks import run_on_ranks
from hypothesis import given
from hypothesis import strategies as st

from snclr_mm.models.losses import info_nce, nearest_neighbor_loss


def make(n, K, d):
    g = torch.Generator().manual_seed(n + K)
    query = torch.randn(n, d, generator=g).double()
    return query, torch.randn(n, K, d, generator=g).double()


@given(
    n=st.integers(1, 5),
    K=st.integers(1, 4),
    d=st.integers(1, 6),
    temperature=st.floats(0.02, 10),
    symmetric=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_generated_inputs_equal_naive_loop(n, K, d, temperature, symmetric, scale):
    query, neighbors = make(n, K, d)
    loss = nearest_neighbor_loss(query * scale, neighbors, temperature, symmetric)
    expected = naive_nearest_neighbor(query, neighbors, temperature, symmetric)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("n, K, d", [(1, 1, 1), (1, 3, 4), (5, 1, 3), (6, 4, 8)])
def test_equals_naive_loop_and_gradcheck(n, K, d, symmetric):
    query, neighbors = make(n, K, d)
    loss = nearest_neighbor_loss(query, neighbors, 0.3, symmetric)
    expected = naive_nearest_neighbor(query, neighbors, 0.3, symmetric)
    torch.testing.assert_close(loss, expected)
    query.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: nearest_neighbor_loss(z, neighbors, 0.3, symmetric), query
    )


def test_the_own_key_as_neighbor_is_info_nce():
    query, neighbors = make(7, 1, 5)
    loss = nearest_neighbor_loss(query, neighbors, 0.3)
    torch.testing.assert_close(loss, info_nce(query, neighbors[:, 0], 0.3))


def test_views_are_means():
    query, neighbors = make(6, 3, 5)
    for symmetric in (False, True):
        loss = nearest_neighbor_loss(query, neighbors[:3], 0.3, symmetric)
        views = [
            naive_nearest_neighbor(view, neighbors[:3], 0.3, symmetric)
            for view in query.split(3)
        ]
        torch.testing.assert_close(loss, sum(views) / 2)


def one_rank(rank, world_size):
    """Losses and gradients of a rank's share of 6 images, averaged as DDP does."""
    query, neighbors = make(6, 3, 5)
    results = []
    for symmetric in (False, True):
        z = query.chunk(world_size)[rank].clone().requires_grad_()
        own = neighbors.chunk(world_size)[rank]
        loss = nearest_neighbor_loss(z, own, 0.3, symmetric)
        known = nearest_neighbor_loss(z, own, 0.3, symmetric, neighbors)
        torch.testing.assert_close(loss, known)
        loss.backward()
        results.append((loss.detach(), z.grad / world_size))
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_equal_one(world_size):
    expected = one_rank(0, 1)
    ranks = run_on_ranks(world_size, one_rank, world_size)
    for i, (loss, gradient) in enumerate(expected):
        losses = torch.stack([rank[i][0] for rank in ranks])
        torch.testing.assert_close(losses.mean(), loss)
        torch.testing.assert_close(torch.cat([rank[i][1] for rank in ranks]), gradient)


def test_bad_input():
    query, neighbors = make(4, 2, 3)
    with pytest.raises(ValueError, match=r"model\.head\.temperature\)=0"):
        nearest_neighbor_loss(query, neighbors, 0)
    with pytest.raises(ValueError, match=r"neighbors \[4, 0, 3\] must be"):
        nearest_neighbor_loss(query, neighbors[:, :0], 0.1)
    with pytest.raises(ValueError, match=r"query \[4, 3\] and key \[3, 3\]"):
        nearest_neighbor_loss(query, neighbors[:3], 0.1)
