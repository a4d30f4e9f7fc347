import pytest
import torch
import torch.nn.functional as F
from helpers.models import D, predictor
from helpers.naive import naive_mean_shift
from mmpretrain.registry import MODELS

from snclr_mm.models import MeanShiftHead


def make_head(**changes):
    queue = dict(type="NeighborQueue", length=64, dim=D)
    return MeanShiftHead(**{"predictor": predictor(), "queue": queue, **changes})


def byol(head):
    """The stock head of MMPretrain's BYOL, with the same predictor."""
    stock = MODELS.build(
        dict(
            type="LatentPredictHead",
            loss=dict(type="CosineSimilarityLoss", shift_factor=2.0, scale_factor=2.0),
            predictor=predictor(),
        )
    )
    stock.predictor.load_state_dict(head.predictor.state_dict())
    return stock


@pytest.mark.parametrize("mix", [None, 0.3])
def test_neighbors_of_the_key_are_positives(mix):
    head = make_head(mix=mix, num_neighbors=3, loss_weight=2.0).double()
    y_1, y_2, rows = (torch.randn(n, D).double() for n in (6, 6, 40))
    head.queue.enqueue(rows)
    rows = head.queue.features[:40].double()
    index = (F.normalize(y_2) @ rows.T).sort(dim=1, descending=True).indices[:, :3]
    z = head.predictor([y_1])[0].detach()
    expected = 2 * naive_mean_shift(z, y_2, rows[index], mix)
    torch.testing.assert_close(head.loss(y_1, y_2), expected)
    assert set(head.log_vars) == {"neighbor_similarity"}


@pytest.mark.parametrize("mix, factor", [(None, 1), (0.0, 2), (0.6, 2)])
def test_without_neighbors_it_is_byol(mix, factor):
    y_1, y_2 = torch.randn(6, D, requires_grad=True), torch.randn(6, D)
    for k in (0, 5):  # none asked for; none in the queue yet
        head = make_head(mix=mix, num_neighbors=k)
        loss, expected = head.loss(y_1, y_2), factor * byol(head).loss(y_1, y_2)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(loss, y_1), torch.autograd.grad(expected, y_1)
        )
    if mix == 0:  # nor with neighbors
        head.queue.enqueue(torch.randn(40, D))
        torch.testing.assert_close(head.loss(y_1, y_2), expected)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(mix=1.2), r"model\.head\.mix=1\.2"),
        (dict(mix="normal"), r"model\.head\.mix='normal' must"),
        (dict(num_neighbors=65), r"num_neighbors=65.*head\.num_neighbors"),
        (dict(loss_weight=0), r"model\.head\.loss_weight\)=0"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        make_head(**change)
