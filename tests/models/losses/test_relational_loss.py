import sys

import pytest
import torch
import torch.nn.functional as F
from helpers.naive import naive_relational
from helpers.operations import autocast_knows_meta
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from snclr_mm.models.losses import relational_loss


def make(n, Q, d):
    rows = F.normalize(torch.randn(Q, d).double(), dim=-1)
    return torch.randn(n, d).double(), torch.randn(n, d).double(), rows


@pytest.mark.parametrize("own_weight", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("n, Q, d", [(1, 1, 1), (5, 9, 4), (8, 200, 6)])
@pytest.mark.parametrize("chunk", [2**19, 1])
def test_equals_naive_loop_and_gradcheck(n, Q, d, own_weight, chunk, monkeypatch):
    module = sys.modules["snclr_mm.models.ops.log_denominator"]
    monkeypatch.setattr(module, "CPU_CHUNK", chunk)  # 1: 64 rows at a time
    inputs = make(n, Q, d)
    settings = (0.1, 0.04, own_weight)
    loss = relational_loss(*inputs, *settings)
    torch.testing.assert_close(loss, naive_relational(*inputs, *settings))
    query, key, rows = inputs
    query.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: relational_loss(z, key, rows, *settings), query
    )


@given(
    n=st.integers(1, 5),
    Q=st.integers(1, 20),
    d=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.02, 10),
    target=st.floats(0.02, 10),
    own_weight=st.none() | st.floats(0, 1),
)
def test_generated_inputs_equal_naive_loop(
    n, Q, d, seed, temperature, target, own_weight
):
    torch.manual_seed(seed)
    inputs = make(n, Q, d)
    settings = (temperature, target, own_weight)
    loss = relational_loss(*inputs, *settings)
    torch.testing.assert_close(
        loss, naive_relational(*inputs, *settings), rtol=1e-9, atol=1e-9
    )


def test_limits():
    query, key, rows = make(6, 50, 8)
    z, y = F.normalize(query), F.normalize(key)
    logits = torch.cat([(z * y).sum(1, keepdim=True), z @ rows.T], dim=1) / 0.1
    info_nce = F.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    sce = relational_loss(query, key, rows, 0.1, 0.05, own_weight=1.0)
    torch.testing.assert_close(sce, info_nce)
    # Without the own key in the denominator λ = 0 is ReSSL.
    ressl = relational_loss(query, key, rows, 0.1, 0.05)
    share = 1 - logits.softmax(1)[:, 0]  # of the queue
    zero = relational_loss(query, key, rows, 0.1, 0.05, own_weight=0.0)
    torch.testing.assert_close(zero + share.log().mean(), ressl)


def test_directions_and_views_are_means():
    _, _, rows = make(1, 20, 5)
    query, key = torch.randn(2, 6, 5).double(), torch.randn(2, 3, 5).double()
    loss = relational_loss(query, key, rows, 0.2, 0.05, 0.5)
    for d in range(2):
        views = [
            naive_relational(view, key[d], rows, 0.2, 0.05, 0.5)
            for view in query[d].split(3)
        ]
        torch.testing.assert_close(loss[d], sum(views) / 2)


def test_keys_and_candidates_are_constants_also_without_gradients():
    query, key, rows = (x.requires_grad_() for x in make(4, 30, 8))
    loss = relational_loss(query, key, rows, 0.1, 0.04, 0.5)
    loss.backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None and rows.grad is None
    with torch.no_grad():
        torch.testing.assert_close(
            relational_loss(query, key, rows, 0.1, 0.04, 0.5), loss
        )


def test_autocast_keeps_float32():
    query, key, rows = (x.bfloat16() for x in make(8, 300, 16))
    exact = relational_loss(query.float(), key.float(), rows.float(), 0.1, 0.04)
    with torch.autocast("cpu", torch.bfloat16):
        loss = relational_loss(query, key, rows, 0.1, 0.04)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)


def test_nothing_of_the_queues_length_is_kept_for_backward():
    sizes = []
    for Q in (2**15, 2**17):
        query = torch.empty(1024, 16, device="meta", requires_grad=True)
        key, rows = torch.empty(1024, 16), torch.empty(Q, 16)
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor.shape)
            return tensor

        unchanged = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        with autocast_knows_meta(), unchanged:
            loss = relational_loss(
                query, key.to("meta"), rows.to("meta"), 0.1, 0.04, own_weight=0.5
            )
        loss.backward()
        sizes.append(kept)
    assert sizes[0] == sizes[1]
    assert max(shape.numel() for shape in sizes[0]) == 1024 * 16


def test_chunks_alone_are_held_at_a_time():
    """Peak of both passes: as for a queue of a sixteenth, up to the queue itself."""
    peaks = []
    for Q in (2**12, 2**16):
        query, key, rows = (x.float() for x in make(512, Q, 4))
        with Largest() as largest:
            relational_loss(query.requires_grad_(), key, rows, 0.1, 0.04).backward()
        peaks.append(largest.numel)
    assert peaks[1] <= max(peaks[0], rows.numel())


class Largest(TorchDispatchMode):
    """Number of values in the largest tensor that an operation makes."""

    numel = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize(
    "settings, message",
    [
        ((0.0, 0.04, None), r"model\.head\.temperature\)=0"),
        ((0.1, -1, None), r"model\.head\.target_temperature\)=-1"),
        ((0.1, 0.04, 1.5), r"model\.head\.own_weight=1\.5"),
        ((0.1, 0.04, -0.5), r"model\.head\.own_weight=-0\.5"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        relational_loss(*make(4, 9, 3), *settings)


def test_bad_shapes():
    query, key, rows = make(4, 9, 3)
    with pytest.raises(ValueError, match=r"\[0, 3\].*empty queue.*model\.head\.queue"):
        relational_loss(query, key, rows[:0], 0.1, 0.04)
    with pytest.raises(ValueError, match=r"candidates \[9, 2\] must be \[Q, 3\]"):
        relational_loss(query, key, rows[:, :2], 0.1, 0.04)
