import pytest
import torch
import torch.nn.functional as F
from helpers.models import D, predictor
from helpers.ranks import run_on_ranks
from helpers.spies import spy_on_gathering

from snclr_mm.models import NearestNeighborHead


def make_head(**changes):
    queue = dict(type="NeighborQueue", length=64, dim=D)
    return NearestNeighborHead(**{"predictor": predictor(), "queue": queue, **changes})


def test_keys_are_replaced_by_their_nearest_neighbors():
    head = make_head(temperature=0.3, loss_weight=2.0)
    y_1, y_2, rows = torch.randn(6, D), torch.randn(6, D), torch.randn(40, D)
    head.queue.enqueue(rows)
    loss = head.loss(y_1, y_2)
    z = head.predictor([y_1])[0]
    expected = 0.0
    for i in range(6):
        logits = []
        for j in range(6):
            nearest = max(
                rows, key=lambda row, j=j: F.cosine_similarity(row, y_2[j], 0)
            )
            logits.append(F.cosine_similarity(z[i], nearest, 0) / 0.3)
        expected -= torch.stack(logits).log_softmax(0)[i] * 2.0 / 6
    torch.testing.assert_close(loss, expected)
    assert head.queue.num_staged == 6
    assert set(head.log_vars) == {"neighbor_similarity"}


def test_empty_queue_is_info_nce():
    head = make_head(temperature=0.3)
    y_1, y_2 = torch.randn(6, D), torch.randn(6, D)
    z, y = F.normalize(head.predictor([y_1])[0]), F.normalize(y_2)
    expected = F.cross_entropy(z @ y.T / 0.3, torch.arange(6))
    torch.testing.assert_close(head.loss(y_1, y_2), expected)


def test_bad_config():
    with pytest.raises(ValueError, match=r"model\.head\.temperature\)=0"):
        make_head(temperature=0)


def one_rank(rank, world_size):
    """Mean loss of 6 images shared by the ranks, and how many values were gathered."""
    sent = spy_on_gathering()
    g = torch.Generator().manual_seed(0)
    head = make_head(predictor=None, temperature=0.3)
    rows = torch.randn(40, D, generator=g)
    head.queue.enqueue(rows.chunk(world_size)[rank])
    sent.clear()
    y_1, y_2 = (y.chunk(world_size)[rank] for y in torch.randn(2, 6, D, generator=g))
    loss = head.loss(y_1, y_2)
    return loss, [tuple(tensor.shape) for tensor in sent]


def test_ranks_exchange_keys_and_rows_numbers_only():
    expected, _ = one_rank(0, 1)
    losses, sent = zip(*run_on_ranks(2, one_rank, 2), strict=True)
    torch.testing.assert_close(sum(losses) / 2, expected)
    assert sent[0] == [(1, 3, D), (1, 3, 1)]
