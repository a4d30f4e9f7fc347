import pytest
import torch
from helpers.models import D, predictor
from helpers.naive import naive_relational

from snclr_mm.models import RelationalHead, info_nce


def make_head(**changes):
    queue = dict(type="NeighborQueue", length=64, dim=D)
    return RelationalHead(**{"queue": queue, **changes})


@pytest.mark.parametrize("own_weight", [None, 0.5])
def test_the_filled_rows_are_compared(own_weight):
    head = make_head(
        own_weight=own_weight, temperature=0.2, target_temperature=0.07, loss_weight=3.0
    ).double()
    y_1, y_2 = torch.randn(6, D).double(), torch.randn(6, D).double()
    head.queue.enqueue(torch.randn(40, D))
    rows = head.queue.features[:40].double()
    expected = 3 * naive_relational(y_1, y_2, rows, 0.2, 0.07, own_weight)
    torch.testing.assert_close(head.loss(y_1, y_2), expected)
    assert head.queue.num_staged == 6


def test_a_predictor_may_be_added():
    head = make_head(predictor=predictor()).double()
    head.queue.enqueue(torch.randn(40, D))
    y_1, y_2 = torch.randn(6, D).double(), torch.randn(6, D).double()
    z = head.predictor([y_1])[0].detach()
    rows = head.queue.features[:40].double()
    expected = naive_relational(z, y_2, rows, 0.1, 0.04)
    torch.testing.assert_close(head.loss(y_1, y_2), expected)


def test_diagnostics_alone_search():
    head = make_head(num_neighbors=7)
    head.queue.enqueue(torch.randn(40, D))
    searched, found = [], []
    search = head.queue.search
    head.queue.search = lambda keys, k: searched.append(k) or search(keys, k)
    y_1, y_2 = torch.randn(6, D), torch.randn(6, D)
    plain = head.loss(y_1, y_2)
    assert searched == [0]
    assert head.log_vars == {}
    head.search_observers.append(found.append)
    torch.testing.assert_close(head.loss(y_1, y_2), plain)
    assert searched == [0, 7]
    assert found[0].index.shape == (1, 6, 7)
    similarity = search(y_2, 7)[0].mean()
    torch.testing.assert_close(head.log_vars["neighbor_similarity"], similarity)


def test_an_empty_queue_is_info_nce():
    head = make_head()
    y_1, y_2 = torch.randn(6, D), torch.randn(6, D)
    torch.testing.assert_close(head.loss(y_1, y_2), info_nce(y_1, y_2, 0.1))
    head.queue.commit()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(head.loss(y_1, y_2), info_nce(y_1, y_2, 0.1))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(temperature=0), r"model\.head\.temperature\)=0"),
        (dict(target_temperature=-0.1), r"head\.target_temperature\)=-0\.1"),
        (dict(own_weight=1.2), r"model\.head\.own_weight=1\.2"),
        (dict(num_neighbors=65), r"num_neighbors=65.*length=64"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        make_head(**change)
