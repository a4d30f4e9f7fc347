import math

import numpy as np
import pytest
import torch

from snclr_mm.evaluation import feature_std, positiveness_entropy, rankme


@pytest.mark.parametrize("n, c", [(50, 20), (20, 50), (2, 3)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rankme_equals_numpy(n, c, scale):
    features = scale * torch.randn(n, c) * torch.logspace(0, -3, c)
    p = np.linalg.svd(features.double().numpy(), compute_uv=False)
    p = p / p.sum() + 1e-7
    expected = np.exp(-(p * np.log(p)).sum())
    assert rankme(features) == pytest.approx(expected, rel=1e-4)


def test_rankme_extremes():
    # Orthogonal rows: full rank; rows that are multiples of one: rank 1.
    assert rankme(7 * torch.eye(12)) == pytest.approx(12, rel=1e-4)
    collapsed = torch.randn(30, 1) @ torch.randn(1, 12)
    assert rankme(collapsed) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.zeros(30, 12)) == pytest.approx(1, abs=1e-3)
    # Three directions of equal strength.
    three = torch.cat([torch.eye(3)] * 10) @ torch.randn(3, 12).svd().V.T
    assert rankme(three) == pytest.approx(3, rel=1e-3)


def test_feature_std_equals_plain_loops():
    features = torch.randn(40, 8) + 2
    rows = [[x / math.hypot(*row) for x in row] for row in features.double().tolist()]
    deviations = []
    for channel in zip(*rows, strict=True):
        mean = sum(channel) / 40
        deviations.append(math.sqrt(sum((x - mean) ** 2 for x in channel) / 39))
    assert feature_std(features) == pytest.approx(sum(deviations) / 8, rel=1e-5)


def test_feature_std_extremes():
    everywhere = torch.randn(4000, 64) * torch.rand(4000, 1)
    assert feature_std(everywhere) == pytest.approx(1 / 8, rel=0.01)
    assert feature_std(torch.rand(30, 1) * torch.randn(1, 64)) < 1e-6


def test_half_precision_input():
    features = torch.randn(40, 8).half()
    assert rankme(features) == rankme(features.float())
    assert feature_std(features) == feature_std(features.float())


def test_positiveness_entropy_against_the_definition():
    weight = [[0.1, 0.2, 0.3], [0.5, 0.5, 0.0], [0.2, 0.2, 0.2]]
    expected = []
    for row in weight:
        shares = [w / sum(row) for w in row]
        expected.append(-sum(p * math.log(p) for p in shares if p > 0))
    found = positiveness_entropy(torch.tensor(weight, dtype=torch.float64))
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found[2].item() == pytest.approx(math.log(3), abs=1e-12)


def test_positiveness_entropy_relative_to_the_maximum():
    weight = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.5] * 4])
    relative = positiveness_entropy(weight) / math.log(4)
    assert relative.tolist() == pytest.approx([0.5, 0, 1])


def test_positiveness_entropy_where_no_neighbor_is_left():
    assert positiveness_entropy(torch.zeros(1, 3)).isnan().all()
