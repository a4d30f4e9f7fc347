import math

import pytest
import torch
from helpers.naive import dot, unit

from snclr_mm.models import CrossAttentionNeck


@pytest.mark.parametrize("projection", ["identity", "linear"])
@pytest.mark.parametrize("gamma", [1.0, 0.1, [0.5, 1.0, 2.0, 4.0]])
@pytest.mark.parametrize("threshold", [False, True])
def test_equals_the_formula(projection, gamma, threshold):
    query, neighbors = torch.randn(5, 6).double(), torch.randn(5, 4, 6).double()
    neck = CrossAttentionNeck(
        6, projection=projection, gamma=gamma, threshold=threshold
    ).double()
    if projection == "linear":
        torch.nn.init.normal_(neck.f_1.weight)
        torch.nn.init.normal_(neck.f_2.weight)
    weight = neck(query, neighbors)
    scale = gamma if isinstance(gamma, list) else [gamma] * 4
    for n in range(5):
        logits = []
        for i in range(4):
            a = torch.tensor(unit(query[n].tolist()), dtype=torch.float64)
            b = torch.tensor(unit(neighbors[n, i].tolist()), dtype=torch.float64)
            if projection == "linear":
                a, b = neck.f_1.weight @ a, neck.f_2.weight @ b
            logits.append(dot(a.tolist(), b.tolist()))
        total = sum(math.exp(v) for v in logits)
        for i, value in enumerate(logits):
            attention = math.exp(value) / total
            expected = 0 if threshold and attention <= 0.25 else attention / scale[i]
            assert weight[n, i].item() == pytest.approx(expected, abs=1e-7)


def test_linear_starts_as_cosine_similarity_and_learns():
    query, neighbors = torch.randn(5, 6), torch.randn(5, 4, 6)
    linear = CrossAttentionNeck(6)
    identity = CrossAttentionNeck(6, projection="identity")
    torch.testing.assert_close(linear(query, neighbors), identity(query, neighbors))
    linear(query, neighbors)[:, 0].sum().backward()
    assert linear.f_1.weight.grad.abs().sum() > 0
    assert linear.f_2.weight.grad.abs().sum() > 0
    assert CrossAttentionNeck(6, hidden_channels=3)(query, neighbors).shape == (5, 4)


def test_double_precision_inputs_to_a_single_precision_neck():
    query, neighbors = torch.randn(5, 6).double(), torch.randn(5, 4, 6).double()
    for projection in ("linear", "identity"):
        neck = CrossAttentionNeck(6, projection=projection)
        weight = neck(query, neighbors)
        assert weight.dtype == torch.float64
        torch.testing.assert_close(weight, neck.double()(query, neighbors))


def test_autocast_and_no_neighbors():
    neck = CrossAttentionNeck(6)
    query = torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = neck(query.bfloat16(), torch.randn(5, 4, 6))
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight.sum(1), torch.ones(5))
    assert neck(query, torch.zeros(5, 0, 6)).shape == (5, 0)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(gamma=0), r"gamma=0 must be"),
        (dict(gamma=-1.0), r"gamma=-1\.0"),
        (dict(gamma=[1.0, 0.0]), r"gamma=\[1\.0, 0\.0\]"),
        (dict(gamma=float("inf")), "gamma=inf"),
        (dict(projection="conv"), r"'conv' is unknown.*linear.*attention\.projection"),
        (dict(in_channels=0), "in_channels=0"),
        (dict(projection="identity", hidden_channels=3), "hidden_channels=3"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        CrossAttentionNeck(**{"in_channels": 6, **change})


def test_bad_input():
    with pytest.raises(ValueError, match=r"\[5, 7\].*in_channels=6"):
        CrossAttentionNeck(6)(torch.randn(5, 7), torch.randn(5, 4, 7))
    with pytest.raises(ValueError, match=r"gamma has 2 values for 4"):
        CrossAttentionNeck(6, gamma=[1.0, 2.0])(torch.randn(5, 6), torch.randn(5, 4, 6))
