import copy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.models import D, predictor
from helpers.naive import naive_loss
from helpers.ranks import run_on_ranks
from helpers.spies import spy_on_gathering
from mmengine.dist import get_rank, get_world_size
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from snclr_mm.models import CrossAttentionNeck, SoftNeighborHead, neighbor_queue
from snclr_mm.models.ops import log_denominator, top_k, topk

# The package exports the function under the module's name.
log_denominator_module = sys.modules[log_denominator.__module__]
NAMES = ("loss", "grad_z", "grad_y1")


@MODELS.register_module(force=True)
class IdentityPredictor(nn.Module):
    """Passes y_1 on as z_1, as the golden values need it."""

    def forward(self, x):
        return x


def make_head(**changes):
    cfg = dict(
        predictor=predictor(),
        queue=dict(type="NeighborQueue", length=64, dim=D),
        num_neighbors=5,
    )
    return SoftNeighborHead(**{**cfg, **changes})


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_without_neighbors_it_is_the_stock_head(temperature):
    stock = MODELS.build(
        dict(
            type="MoCoV3Head",
            predictor=predictor(),
            loss=dict(type="CrossEntropyLoss", loss_weight=2 * temperature),
            temperature=temperature,
        )
    )
    for objective in ("log_of_sum", "sum_of_logs"):
        head = make_head(
            num_neighbors=0,
            temperature=temperature,
            objective=objective,
            loss_weight=2 * temperature,
        )
        head.predictor.load_state_dict(stock.predictor.state_dict())
        y_1, y_2 = torch.randn(12, D, requires_grad=True), torch.randn(12, D)
        loss, expected = head.loss(y_1, y_2), stock.loss(y_1, y_2)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(loss, y_1), torch.autograd.grad(expected, y_1)
        )


@pytest.mark.parametrize("objective", ["log_of_sum", "sum_of_logs"])
def test_whole_chain_equals_naive_loop(objective):
    head = make_head(
        predictor=dict(type="IdentityPredictor"),
        objective=objective,
        temperature=0.2,
        own_positiveness=0.7,
        loss_weight=3.0,
        attention=dict(projection="identity", gamma=0.5),
    ).double()
    head.queue.enqueue(torch.randn(40, D))
    y_1, y_2 = torch.randn(6, D).double(), torch.randn(6, D).double()
    rows = head.queue.features[:40]
    index = (F.normalize(y_2) @ rows.T).sort(dim=1, descending=True).indices[:, :5]
    cosine = torch.einsum("nd,nkd->nk", F.normalize(y_1), rows[index])
    weight = cosine.softmax(dim=1) / 0.5
    expected = 3 * naive_loss(y_1, y_2, index, rows, weight, 0.2, objective, 0.7)
    torch.testing.assert_close(head.loss(y_1, y_2), expected)
    assert head.log_vars["positiveness_mean"].item() == pytest.approx(0.4)
    torch.testing.assert_close(head.log_vars["positiveness_max"], weight.amax(1).mean())
    torch.testing.assert_close(
        head.log_vars["neighbor_similarity"],
        (F.normalize(y_2)[:, None] * rows[index]).sum(-1).mean(),
    )


@pytest.mark.parametrize("objective", ["log_of_sum", "sum_of_logs"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [203, 3001])  # rows count once, and several times
def test_what_a_gpu_computes_in_half_precision(length, dtype, objective, monkeypatch):
    """The branches of GPUs, on a CPU, several chunks, against double precision."""
    settings = dict(
        predictor=dict(type="IdentityPredictor"),
        queue=dict(type="NeighborQueue", length=length, dim=64),
        attention=dict(projection="linear"),
        num_neighbors=30,
        temperature=0.2,
        objective=objective,
    )
    head = make_head(**settings)
    head.queue.enqueue(torch.randn(length, 64))
    views, keys = torch.randn(2, 2, 16, 64)
    count_rows = log_denominator_module.count_rows
    results = []
    for exact in (True, False):
        if exact:
            judge, y = copy.deepcopy(head).double(), views.double()
        else:
            judge, y = head, views.clone()
            replace = partial(monkeypatch.setattr, log_denominator_module)
            replace("count_rows", lambda index, rows, _: count_rows(index, rows, True))
            replace("CPU_CHUNK", 16 * 100)
            monkeypatch.setattr(topk, "CPU_CHUNK", 2**10)
            look = partial(top_k, dtype=dtype)
            monkeypatch.setattr(neighbor_queue, "top_k", look)
        found = []
        judge.search_observers.append(lambda neighbors, f=found: f.append(neighbors))
        y.requires_grad_()
        with torch.autocast("cpu", dtype, enabled=not exact):
            loss = judge.loss_of_views(list(y), list(keys.to(y.dtype)))["loss"]
        leaves = [y, *(p for p in judge.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad(loss, leaves)
        results.append((loss, gradients, found[0].index.sort(-1)[0]))
    (expected, gradients, index), (loss, rounded, found) = results
    assert loss.dtype == torch.float32
    assert torch.equal(found, index)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-3, atol=0)
    for ours, reference in zip(rounded, gradients, strict=True):
        assert (ours - reference).norm() < 0.02 * reference.norm()


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("projection", ["linear", "identity"])
def test_all_views_at_once_equal_each_direction_apart(projection, sync):
    head = make_head(
        attention=dict(projection=projection),
        queue=dict(type="NeighborQueue", length=64, dim=D, sync=sync),
        predictor=dict(type="IdentityPredictor"),
    ).double()
    head.queue.enqueue(torch.randn(40, D))
    views = [y.requires_grad_() for y in torch.randn(3, 6, D).double()]
    keys = list(torch.randn(2, 6, D).double())
    together = head.loss_of_views(views, keys)["loss"]
    pairs = [(0, 1), (2, 1), (1, 0), (2, 0)]  # a view, and the key of another one
    apart = sum(head.loss(views[i], keys[j]) for i, j in pairs) / 2
    torch.testing.assert_close(together, apart)
    leaves = [*views, *(p for p in head.parameters() if p.requires_grad)]
    torch.testing.assert_close(
        torch.autograd.grad(together, leaves), torch.autograd.grad(apart, leaves)
    )


def test_a_neck_of_ones_own_gets_the_neighbors():
    head = make_head()

    class Own(CrossAttentionNeck):
        def forward(self, query, neighbors):
            self.seen = neighbors
            return super().forward(query, neighbors)

    head.attention = Own(D)
    head.queue.enqueue(torch.randn(40, D))
    head.loss(torch.randn(6, D), torch.randn(6, D))
    assert head.attention.seen.shape == (6, 5, D)


def exchanged_rank(rank):
    """Bytes that one step's forward pass and commit send, and the queue after it."""
    sent = spy_on_gathering()
    head = make_head()
    head.queue.enqueue(torch.randn(20, D, generator=torch.Generator().manual_seed(0)))
    g = torch.Generator().manual_seed(1 + rank)
    y_1, y_2 = torch.randn(2, 6, D, generator=g)
    key_1, key_2 = torch.randn(2, 6, D, generator=g).half()
    sent.clear()
    head.loss_of_views([y_1, y_2], [key_1, key_2])
    head.queue.commit()
    rows = torch.stack([key_2, key_1]).float()
    size = sum(tensor.numel() * tensor.element_size() for tensor in sent)
    return size, len(sent), head.queue.features[40:64], rows


def test_keys_and_indices_are_exchanged_once():
    results = run_on_ranks(2, exchanged_rank)
    for sent, calls, *_ in results:
        assert sent == 2 * 6 * (2 * D + 4 * 5)  # two views, K = 5, keys in float16
        assert calls == 2
    (_, _, features, rows), (_, _, features_2, rows_2) = results
    assert torch.equal(features, features_2)
    # The first view of all ranks, then the second.
    expected = torch.stack([rows, rows_2], dim=1).flatten(0, 2)
    torch.testing.assert_close(features, F.normalize(expected, dim=1))


def warm_up_rank(rank):
    """What is gathered without neighbors, and their loss."""
    sent = spy_on_gathering()
    head = make_head(predictor=None, temperature=0.3)
    y = torch.randn(2, 12, D, generator=torch.Generator().manual_seed(0))
    y_1, y_2 = y[:, 6 * rank : 6 * rank + 6]
    loss = head.loss(y_1, y_2)
    return [tuple(t.shape) for t in sent], loss, F.normalize(y, dim=2)


def test_without_neighbors_keys_alone_are_exchanged():
    (sent, loss, y), (_, other, _) = run_on_ranks(2, warm_up_rank)
    assert sent == [(1, 6, D)]
    expected = F.cross_entropy(y[0] @ y[1].T / 0.3, torch.arange(12))
    torch.testing.assert_close((loss + other) / 2, expected)


def test_gradient_through_the_positiveness():
    y_1, y_2, rows = torch.randn(6, D), torch.randn(6, D), torch.randn(40, D)
    gradients = {}
    for detach in (False, True):
        torch.manual_seed(1)
        head = make_head(predictor=None)
        head.queue.enqueue(rows)
        attention = head.attention.forward
        if detach:
            head.attention.forward = lambda *args, f=attention: f(*args).detach()
        leaf = y_1.clone().requires_grad_()
        head.loss(leaf, y_2).backward()
        gradients[detach] = leaf.grad
        for p in head.attention.parameters():
            assert detach or p.grad.abs().sum() > 0
    assert not torch.allclose(gradients[False], gradients[True])


def test_warm_up_is_info_nce_and_gives_every_parameter_a_gradient():
    y_1, y_2 = torch.randn(6, D), torch.randn(6, D)
    head = make_head()
    plain = make_head(num_neighbors=0)
    plain.predictor.load_state_dict(head.predictor.state_dict())
    expected = plain.loss(y_1, y_2)
    head.queue.enqueue(torch.randn(4, D))  # fewer than K
    loss = head.loss(y_1, y_2)
    torch.testing.assert_close(loss, expected)
    assert head.log_vars == {}
    loss.backward()  # DistributedDataParallel needs a gradient for all
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)
    head.queue.enqueue(torch.randn(20, D))
    head.queue.search_enabled = False  # as the hook's warm-up does
    torch.testing.assert_close(head.loss(y_1, y_2), expected)
    head.queue.search_enabled = True
    assert not torch.allclose(head.loss(y_1, y_2), expected)


def test_keys_get_no_gradient():
    head = make_head()
    head.queue.enqueue(torch.randn(40, D))
    y_1, y_2 = torch.randn(2, 6, D, requires_grad=True).unbind()
    y_1.retain_grad()
    y_2.retain_grad()
    head.loss(y_1, y_2).backward()
    assert y_1.grad.abs().sum() > 0
    assert y_2.grad is None
    assert not head.queue._staged[0][0].requires_grad


class TwoViews(nn.Module):
    """SimCLR-type: one encoder, no predictor, a gradient through both views."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3, D)
        queue = dict(type="NeighborQueue", length=64, dim=D)
        self.head = make_head(
            predictor=None, queue=queue, temperature=0.3, detach_keys=False
        )
        rows = torch.randn(40, D)
        self.head.queue.enqueue(rows.chunk(get_world_size())[get_rank()])

    def forward(self, x_1, x_2):
        y_1, y_2 = self.encoder(x_1), self.encoder(x_2)
        return self.head.loss(y_1, y_2) + self.head.loss(y_2, y_1)


def two_views_rank(rank, world_size):
    """Gradient of 6 images shared by the ranks, averaged by DDP."""
    model = TwoViews().double()
    views = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1)).double()
    share = slice(rank * 6 // world_size, (rank + 1) * 6 // world_size)
    wrapped = DistributedDataParallel(model) if world_size > 1 else model
    wrapped(*views[:, share]).backward()
    assert not any(keys.requires_grad for keys, _ in model.head.queue._staged)
    return {name: p.grad for name, p in model.named_parameters()}


def test_both_views_learn_alike_on_any_number_of_ranks():
    expected = two_views_rank(0, 1)
    assert set(expected) == {
        "encoder.weight", "encoder.bias",
        "head.attention.f_1.weight", "head.attention.f_2.weight",
    }  # fmt: skip
    for gradients in run_on_ranks(2, two_views_rank, 2):
        torch.testing.assert_close(gradients, expected)
    model = TwoViews().double()
    model.head.detach_keys = True
    views = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1)).double()
    model(*views).backward()
    assert not torch.allclose(model.encoder.weight.grad, expected["encoder.weight"])


def step(head, optimizer, commit):
    optimizer.zero_grad()
    head.loss(torch.randn(6, D), torch.randn(6, D)).backward()
    optimizer.step()
    if commit:
        assert head.queue.commit()


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("optimizer", [dict(), dict(fused=True)])
def test_a_loop_that_forgets_to_commit_is_told_at_the_second_step(optimizer, copied):
    head = make_head(queue=dict(type="NeighborQueue", length=9, dim=D))
    if copied:
        head.loss(torch.randn(6, D), torch.randn(6, D))
        head.queue.discard()
        head = copy.deepcopy(head)
    adam = torch.optim.AdamW(head.parameters(), **optimizer)
    for _ in range(3):  # 6 rows a step: more than the queue after two of them
        step(head, adam, commit=True)
    step(head, adam, commit=False)
    with pytest.raises(RuntimeError, match=r"custom_hooks=.*queue\.commit\(\)"):
        step(head, adam, commit=False)


def test_gradients_are_accumulated_over_many_batches():
    head = make_head()
    for _ in range(150):
        head.loss(torch.randn(2, D), torch.randn(2, D))
    assert head.queue.num_staged == 300


def test_stages_in_training_only():
    head = make_head()
    y = torch.randn(6, D)
    head.loss(y, y)
    assert head.queue.num_staged == 6
    head.queue.discard()
    head.eval().loss(y, y)
    assert head.queue.num_staged == 0


def released_rank(rank, path):
    """One rank's loss and gradient through the head, each with a queue of its own."""
    data = {k: torch.from_numpy(v) for k, v in np.load(path).items()}
    Q, d = data["queue"].shape
    head = SoftNeighborHead(
        predictor=dict(type="IdentityPredictor"),
        queue=dict(type="NeighborQueue", length=Q, dim=d, init="random", sync=False),
        attention=dict(projection="identity", threshold=bool(data["threshold"])),
        num_neighbors=int(data["num_neighbors"]),
        temperature=float(data["temperature"]),
        objective="sum_of_logs",
        loss_weight=2 * float(data["temperature"]),
    ).double()
    head.queue.enqueue(data["queue"].roll(rank, dims=0))  # other rows, same content
    z = data["z"][rank].requires_grad_()
    y_1 = data["y1"][rank].requires_grad_()
    head.predictor.forward = lambda _: [z]
    loss = head.loss(y_1, data["y2"][rank])
    loss.backward()
    return loss.detach(), z.grad, y_1.grad


@pytest.mark.parametrize("name", ["w2_k3", "w2_k6_threshold"])
def test_released_settings_match_the_authors_code(name):
    path = Path(__file__).parents[1] / f"golden/{name}.npz"
    data = np.load(path)
    results = run_on_ranks(2, released_rank, path)
    for name, values in zip(NAMES, zip(*results, strict=True), strict=True):
        np.testing.assert_allclose(
            torch.stack(values), data[f"{name}_released"], rtol=0, atol=1e-9
        )


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(num_neighbors=65), r"num_neighbors=65 .*head\.num_neighbors.*length=64"),
        (dict(num_neighbors=-1), r"num_neighbors=-1"),
        (dict(num_neighbors=2.5), r"num_neighbors=2\.5 .* must be an int"),
        (dict(temperature=0), r"model\.head\.temperature\)=0"),
        (dict(temperature=-0.2), r"model\.head\.temperature\)=-0\.2"),
        (dict(objective="sum"), r"'sum' is unknown.*model\.head\.objective"),
        (dict(loss_weight=0.0), r"model\.head\.loss_weight\)=0"),
        (dict(own_positiveness=-1), r"model\.head\.own_positiveness\)=-1"),
        (dict(attention=dict(in_channels=9)), r"in_channels=9.*queue\.dim=8"),
        (dict(attention=dict(gamma=0)), r"attention\.gamma=0"),
        (dict(attention=dict(gamma=[1.0, 2.0])), r"gamma has 2 .*num_neighbors=5"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        make_head(**change)


def test_widths_that_differ_name_the_config_keys():
    head = make_head()
    with pytest.raises(ValueError, match=r"\[4, 9\].*queue\.dim.*neck\.out_channels"):
        head.loss(torch.randn(4, 9), torch.randn(4, 9))
    head = make_head(predictor={**predictor(), "out_channels": 6})
    with pytest.raises(ValueError, match=r"\[4, 6\].*predictor\.out_channels=8"):
        head.loss(torch.randn(4, D), torch.randn(4, D))
