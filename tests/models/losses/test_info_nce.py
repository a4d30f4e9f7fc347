import pytest
import torch
import torch.nn.functional as F
from helpers.ranks import run_on_ranks

from snclr_mm.models import info_nce


def make():
    g = torch.Generator().manual_seed(0)
    query = torch.randn(12, 5, generator=g, dtype=torch.float64)
    return query, torch.randn(6, 5, generator=g, dtype=torch.float64)


def naive(query, key):
    """Each of the two views of six images, over all keys."""
    total = 0
    for i, z in enumerate(query):
        logits = torch.stack([F.cosine_similarity(z, y, 0) / 0.3 for y in key])
        total = total - logits.log_softmax(0)[i % 6]
    return total / 12


@pytest.mark.parametrize("detach_keys", [True, False])
def test_equals_naive_loop(detach_keys):
    leaves = [part.requires_grad_() for part in make()]
    loss = info_nce(*leaves, 0.3, detach_keys)
    expected = naive(*leaves)
    torch.testing.assert_close(loss, expected)
    got = torch.autograd.grad(loss, leaves, allow_unused=True)
    gradient = torch.autograd.grad(expected, leaves)
    torch.testing.assert_close(got[0], gradient[0])
    if detach_keys:
        assert got[1] is None
    else:
        torch.testing.assert_close(got[1], gradient[1])


def rank_share(rank, detach_keys):
    query, key = make()
    query = query.view(2, 6, 5)[:, 3 * rank : 3 * rank + 3].reshape(6, 5)
    leaves = [query.requires_grad_(), key[3 * rank : 3 * rank + 3].requires_grad_()]
    loss = info_nce(*leaves, 0.3, detach_keys)
    loss.backward()
    return loss.detach(), leaves[0].grad.view(2, 3, 5), leaves[1].grad


@pytest.mark.parametrize("detach_keys", [True, False])
def test_does_not_depend_on_the_number_of_ranks(detach_keys):
    leaves = [part.requires_grad_() for part in make()]
    expected = info_nce(*leaves, 0.3, detach_keys)
    expected.backward()
    losses, queries, keys = zip(*run_on_ranks(2, rank_share, detach_keys), strict=True)
    torch.testing.assert_close(sum(losses) / 2, expected.detach())
    # DistributedDataParallel averages: each rank's part counts half.
    gradient = torch.cat(queries, dim=1).reshape(12, 5) / 2
    torch.testing.assert_close(gradient, leaves[0].grad)
    if detach_keys:
        assert keys == (None, None)
    else:
        torch.testing.assert_close(torch.cat(keys) / 2, leaves[1].grad)


@pytest.mark.parametrize(
    "query, key",
    [
        ([4, 5], [4, 6]),
        ([5, 5], [4, 5]),
        ([4, 5], [0, 5]),
        ([2, 4, 5], [2, 4, 5]),
    ],
)
def test_bad_shapes(query, key):
    with pytest.raises(ValueError, match=r"query \[.* and key \[.* must both be"):
        info_nce(torch.zeros(query), torch.zeros(key), 1.0)


def test_bad_temperature():
    with pytest.raises(ValueError, match=r"model\.head\.temperature"):
        info_nce(*make(), 0)
