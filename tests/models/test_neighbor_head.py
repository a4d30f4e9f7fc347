"""What every method's head must do."""

import copy

import pytest
import torch
from helpers.models import RESNET, D, neck, predictor, soft_head, train
from helpers.ranks import run_on_ranks
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS

from snclr_mm.models import SNCLR

METHODS = {
    "SNCLR": soft_head(),
    "NNCLR": dict(type="NearestNeighborHead", predictor=predictor(), num_neighbors=3),
    "NNCLR, symmetric": dict(
        type="NearestNeighborHead", predictor=predictor(), symmetric=True
    ),
    "MSF": dict(type="MeanShiftHead", predictor=predictor()),
    "MNN": dict(type="MeanShiftHead", predictor=predictor(), mix=0.4),
    "ReSSL": dict(type="RelationalHead"),
    "SCE": dict(type="RelationalHead", own_weight=0.5, predictor=predictor()),
    "NNBYOL": dict(
        type="NeighborKeys",
        head=dict(
            type="LatentPredictHead",
            loss=dict(type="CosineSimilarityLoss"),
            predictor=predictor(),
        ),
    ),
    "pNNCLR": dict(
        type="NeighborKeys",
        head=dict(
            type="MoCoV3Head",
            loss=dict(type="CrossEntropyLoss"),
            predictor=predictor(),
            temperature=0.3,
        ),
        num_neighbors=3,
        mix=0.6,
    ),
}


def make_head(method, sync=True):
    torch.manual_seed(0)
    queue = dict(type="NeighborQueue", length=64, dim=D, sync=sync)
    cfg = copy.deepcopy({**METHODS[method], "queue": queue})
    for part in (cfg, cfg.get("head", {})):  # no statistics of a batch
        if part.get("predictor"):
            part["predictor"]["norm_cfg"] = dict(type="GN", num_groups=1)
    return MODELS.build(cfg).double()


def one_rank(rank, world_size):
    """Each method's loss and gradients for a share of 6 images, warm-up and after."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(48, D, generator=g)
    y_1, y_2 = torch.randn(2, 6, D, generator=g).double().chunk(world_size, 1)[rank]
    results = {}
    for method in METHODS:
        for sync in (True, False):
            head = make_head(method, sync)
            for step in ("warm-up", "neighbors"):
                y = y_1.clone().requires_grad_()
                head.zero_grad()
                loss = head.loss(y, y_2)
                loss.backward()
                gradients = [p.grad for p in head.parameters() if p.requires_grad]
                # DistributedDataParallel expects one for each.
                assert None not in gradients, (method, step)
                results[method, sync, step] = (loss.detach(), y.grad, gradients)
                head.queue.enqueue(rows.chunk(world_size)[rank] if sync else rows)
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_equal_one(world_size):
    expected = one_rank(0, 1)
    ranks = run_on_ranks(world_size, one_rank, world_size)
    for case, (loss, y_grad, gradients) in expected.items():
        parts = [rank[case] for rank in ranks]
        losses, y_grads, rank_gradients = zip(*parts, strict=True)
        torch.testing.assert_close(sum(losses) / world_size, loss, msg=str(case))
        # DistributedDataParallel takes the mean over the ranks.
        torch.testing.assert_close(torch.cat(y_grads) / world_size, y_grad)
        for parameter, values in zip(
            gradients, zip(*rank_gradients, strict=True), strict=True
        ):
            torch.testing.assert_close(sum(values) / world_size, parameter)


@pytest.mark.parametrize("method", METHODS)
def test_all_views_at_once_equal_each_direction_apart(method):
    head = make_head(method)
    head.queue.enqueue(torch.randn(48, D))
    views = [y.requires_grad_() for y in torch.randn(3, 6, D).double()]
    keys = list(torch.randn(2, 6, D).double())
    for directions in ([0, 1], [1], [0]):
        outputs = head.loss_of_views(
            # A view that is the only key is no query.
            [None if directions == [i] else y for i, y in enumerate(views)],
            [key if i in directions else None for i, key in enumerate(keys)],
        )
        apart = 0
        for key in directions:
            queries = [y for i, y in enumerate(views) if i != key]
            apart += sum(head.loss(y, keys[key]) for y in queries) / len(queries)
        torch.testing.assert_close(outputs["loss"], apart)
        assert outputs["queue_fill"] == 48 / 64


@pytest.mark.parametrize("algorithm", ["SNCLR", "MoCoV3", "BYOL", "SimSiam"])
@pytest.mark.parametrize("method", METHODS)
def test_trains_in_every_algorithm(method, algorithm):
    MessageHub.get_current_instance().update_info("max_iters", 10)
    queue = dict(type="NeighborQueue", length=64, dim=D)
    head = copy.deepcopy({**METHODS[method], "queue": queue})
    model = dict(type=algorithm, backbone=RESNET, neck=neck(), head=head)
    model = MODELS.build(model)
    before = [p.clone() for p in model.parameters() if p.requires_grad]
    losses, _ = train(model, 3, 8)
    assert torch.tensor(losses).isfinite().all() and len(set(losses)) == 3
    after = [p for p in model.parameters() if p.requires_grad]
    assert not any(map(torch.equal, before, after))
    assert len(model.head.queue) == 3 * 2 * 8
    searches = "neighbor_similarity" in model.head.log_vars
    assert searches == model.head.needs_neighbors


def test_one_direction():
    """Only x_1's projection is a query, and only y_2 a key."""
    MessageHub.get_current_instance().update_info("max_iters", 10)
    model = SNCLR(RESNET, neck(), {**METHODS["MSF"], "queue": soft_head()["queue"]})
    model.head.queue.enqueue(torch.randn(64, D))
    x = list(torch.randn(2, 8, 3, 16, 16))
    passed = []
    for branch in (model.backbone, model.momentum_encoder):
        branch.register_forward_pre_hook(
            lambda module, args, branch=branch: passed.append((branch, args[0]))
        )
    with torch.no_grad():
        y_1 = model.neck(model.backbone(x[0]))[0]
        y_2 = model.momentum_encoder(x[1])[0]
        expected = model.head.loss(y_1, y_2)
    model.head.queue.discard()
    passed.clear()
    model.one_directional = True
    with torch.no_grad():
        torch.testing.assert_close(model.loss(x, None)["loss"], expected)
    online, momentum = passed
    assert online[0] is model.backbone and torch.equal(online[1], x[0])
    assert momentum[0] is model.momentum_encoder and torch.equal(momentum[1], x[1])
    assert model.head.queue.num_staged == 8
