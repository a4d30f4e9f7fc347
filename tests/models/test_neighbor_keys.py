import pytest
import torch
import torch.nn.functional as F
from helpers.models import COSINE, PAIR_HEADS, QUEUE, D
from helpers.ranks import run_on_ranks
from mmpretrain.registry import MODELS

from snclr_mm.models import NearestNeighborHead, NeighborKeys


def make_head(name, **changes):
    head = NeighborKeys(**{"head": PAIR_HEADS[name], "queue": QUEUE, **changes})
    head.queue.enqueue(torch.randn(40, D))
    return head


def alone(head, name, y_1, y_2):
    """What the wrapped head says about these very features."""
    module = head.head
    if name == "contrastive":
        z, y = F.normalize(y_1), F.normalize(y_2)
        pos = (z * y).sum(1, keepdim=True)
        neg = (z @ y.T)[~torch.eye(len(z), dtype=bool)].view(len(z), -1)
        return module.loss(pos, neg)
    return getattr(module, "loss", module)(y_1, y_2)


@pytest.mark.parametrize("name", PAIR_HEADS)
def test_keys_are_replaced_and_mixed(name):
    y_1, y_2 = torch.randn(6, D), torch.randn(6, D)
    y = F.normalize(y_2)
    head = make_head(name, num_neighbors=3)
    rows = head.queue.features
    index = (y @ rows[:40].T).sort(dim=1, descending=True).indices[:, :3]
    mean = rows[index].mean(1)
    for mix in (0.0, 0.3, 1.0):
        head.mix = mix
        expected = alone(head, name, y_1, mix * mean + (1 - mix) * y)
        torch.testing.assert_close(head.loss(y_1, y_2), expected)
    similarity = torch.einsum("nd,nkd->nk", y, rows[index]).mean()
    torch.testing.assert_close(head.log_vars["neighbor_similarity"], similarity)
    head.queue.search_enabled = False  # the warm-up
    torch.testing.assert_close(head.loss(y_1, y_2), alone(head, name, y_1, y_2))


def test_one_of_the_neighbors_is_drawn_for_each_image():
    head = make_head("cosine", num_neighbors=3, pick="sample")
    y_1, y_2 = torch.randn(6, D), torch.randn(6, D)
    _, index = head.queue.search(y_2, 3)
    seen = []
    head.head.forward = lambda _, key: seen.append(key) or key.sum()
    for _ in range(50):
        head.loss(y_1, y_2)
    picked = torch.stack(seen)[:, :, None] == head.queue.features[index]
    picked = picked.all(-1)  # [50, 6, 3]
    assert (picked.sum(-1) == 1).all()
    assert picked.any(0).all()  # each neighbor of each image
    assert any(len(set(p.int().argmax(-1).tolist())) > 1 for p in picked)


def test_nnclr_by_two_roads():
    """MoCoV3Head on neighbor keys, ContrastiveHead so, and NearestNeighborHead."""
    y_1, y_2, rows = torch.randn(6, D), torch.randn(6, D), torch.randn(40, D)
    heads = [
        NeighborKeys(head=PAIR_HEADS["mocov3"], queue=QUEUE),
        NeighborKeys(head=PAIR_HEADS["contrastive"], queue=QUEUE),
        NearestNeighborHead(predictor=None, queue=QUEUE, temperature=0.3),
    ]
    heads[0].head.predictor = torch.nn.Identity()
    for head in heads:
        head.queue.enqueue(rows)
    first, *others = (head.loss(y_1, y_2) for head in heads)
    for loss in others:
        torch.testing.assert_close(loss, first)


def test_the_predictor_learns_and_keys_do_not():
    for name in ("latent", "mocov3"):
        head = make_head(name, mix="uniform")
        y_1, y_2 = (torch.randn(6, D, requires_grad=True) for _ in range(2))
        head.loss(y_1, y_2).backward()
        assert all(p.grad is not None for p in head.parameters())
        assert y_1.grad.abs().sum() > 0 and y_2.grad is None


def contrastive_rank(rank, world_size):
    g = torch.Generator().manual_seed(0)
    head = NeighborKeys(head=PAIR_HEADS["contrastive"], queue=QUEUE)
    head.queue.enqueue(torch.randn(42, D, generator=g).chunk(world_size)[rank])
    y_1, y_2 = (y.chunk(world_size)[rank] for y in torch.randn(2, 6, D, generator=g))
    return head.loss(y_1, y_2)


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_other_images_are_those_of_all_ranks(world_size):
    losses = torch.stack(run_on_ranks(world_size, contrastive_rank, world_size))
    torch.testing.assert_close(losses.mean(), contrastive_rank(0, 1))


@MODELS.register_module(force=True)
class NeedsMasks(torch.nn.Module):
    def loss(self, pred, target, mask):
        raise AssertionError


@pytest.mark.parametrize(
    "head, arguments",
    [
        (dict(type="NeedsMasks"), "pred, target, mask"),
        (dict(type="SwAVHead", loss=COSINE), "pred"),
        (dict(type="LinearClsHead", num_classes=3, in_channels=D), "feats, data_samp"),
    ],
)
def test_a_head_of_other_arguments_is_refused(head, arguments):
    message = rf"model\.head\.head\.type={head['type']} takes \({arguments}"
    with pytest.raises(TypeError, match=message):
        NeighborKeys(head=head, queue=QUEUE)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(pick="first"), r"model\.head\.pick='first' must be .nearest. or"),
        (dict(mix=-0.1), r"model\.head\.mix=-0\.1"),
        (dict(num_neighbors=65), r"num_neighbors=65"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        make_head("cosine", **change)
