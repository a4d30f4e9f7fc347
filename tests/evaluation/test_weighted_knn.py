import math

import pytest
import torch
from helpers.naive import dot, unit

from snclr_mm.evaluation import knn_grid, weighted_knn


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (5, 0.07), (20, 1.0), (50, 0.5)])
def test_equals_plain_loops(k, temperature):
    bank, labels = torch.randn(50, 4).double(), torch.randint(0, 6, (50,))
    queries = torch.randn(30, 4).double() * 10
    predicted = weighted_knn(queries, bank, labels, k, temperature, batch_size=7)
    for query, prediction in zip(queries.tolist(), predicted.tolist(), strict=True):
        cosine = [dot(unit(query), unit(row)) for row in bank.tolist()]
        best = sorted(range(50), key=lambda i: -cosine[i])[:k]
        votes = [0.0] * 6
        for i in best:
            votes[labels[i]] += math.exp(cosine[i] / temperature)
        assert prediction == votes.index(max(votes))


def test_tiny_temperature_does_not_overflow():
    bank = torch.eye(3)
    assert weighted_knn(bank, bank, torch.arange(3), 2, 1e-4).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(k=0), r"k=0 .* 5 images .*val_cfg\.k"),
        (dict(k=6), "k=6 .*at most the bank's 5 images"),
        (dict(temperature=0), r"temperature=0 .*val_cfg\.temperature"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        weighted_knn(torch.eye(5), torch.eye(5), torch.arange(5), **{"k": 3, **change})


def test_grid_equals_single_settings():
    bank, labels = torch.randn(60, 4), torch.randint(0, 5, (60,))
    queries = torch.randn(25, 4)
    grid = knn_grid(queries, bank, labels, [7, 1, 30], [0.07, 1.0], batch_size=8)
    assert list(grid) == [(k, t) for k in (7, 1, 30) for t in (0.07, 1.0)]
    for (k, temperature), predicted in grid.items():
        expected = weighted_knn(queries, bank, labels, k, temperature)
        assert torch.equal(predicted, expected)
    with pytest.raises(ValueError, match="k=61"):
        knn_grid(queries, bank, labels, [1, 61], [0.07])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite(value):
    good, bad = torch.randn(6, 4), torch.randn(6, 4)
    bad[1, 2] = bad[4, 0] = value
    labels = torch.arange(6) % 2
    with pytest.raises(ValueError, match="2 of 6 features of the bank are not finite"):
        weighted_knn(good, bad, labels, 3)
    with pytest.raises(ValueError, match="2 of 6 features of the test images are not"):
        knn_grid(bad, good, labels, [3], [0.07])
