import math

import pytest
import torch

from snclr_mm.evaluation.positiveness import positiveness_entropy


def test_against_the_definition():
    weight = [[0.1, 0.2, 0.3], [0.5, 0.5, 0.0], [0.2, 0.2, 0.2]]
    expected = []
    for row in weight:
        shares = [w / sum(row) for w in row]
        expected.append(-sum(p * math.log(p) for p in shares if p > 0))
    found = positiveness_entropy(torch.tensor(weight, dtype=torch.float64))
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found[2].item() == pytest.approx(math.log(3), abs=1e-12)


def test_relative_to_the_maximum():
    weight = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.5] * 4])
    relative = positiveness_entropy(weight) / math.log(4)
    assert relative.tolist() == pytest.approx([0.5, 0, 1])


def test_no_neighbor_is_left():
    assert positiveness_entropy(torch.zeros(1, 3)).isnan().all()
