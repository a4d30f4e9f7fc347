"""Steps of every head under a GPU's autocast, which casts otherwise than a CPU's."""

import pytest
import torch
import torch.nn.functional as F
from helpers.cuda_autocast import cuda_autocast
from helpers.models import PAIR_HEADS, QUEUE, RESNET, D, neck, predictor, soft_head

from snclr_mm.models import SNCLR


def keys_of(head, **changes):
    return dict(type="NeighborKeys", head=head, queue=QUEUE, **changes)


WITH_PREDICTOR = dict(predictor=predictor(), queue=QUEUE)
HEADS = {
    "soft": soft_head(),
    "gamma": soft_head(attention=dict(gamma=[1.0, 1.0, 2.0, 2.0, 2.0], threshold=True)),
    "per rank": soft_head(queue=dict(QUEUE, sync=False)),
    "K = 0": soft_head(num_neighbors=0),
    "keys that learn": soft_head(detach_keys=False),
    "nearest": dict(type="NearestNeighborHead", **WITH_PREDICTOR),
    "MSF": dict(type="MeanShiftHead", **WITH_PREDICTOR),
    "MNN": dict(type="MeanShiftHead", mix=0.3, **WITH_PREDICTOR),
    "ReSSL": dict(type="RelationalHead", queue=QUEUE),
    "SCE": dict(type="RelationalHead", own_weight=0.5, **WITH_PREDICTOR),
    **{f"keys of {name}": keys_of(head) for name, head in PAIR_HEADS.items()},
    **{
        f"mixed keys of {name}": keys_of(head, num_neighbors=3, pick="sample", mix=0.3)
        for name, head in PAIR_HEADS.items()
    },
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_are_in_float32(dtype):
    half = torch.randn(3, 4).to(dtype)
    with cuda_autocast(dtype):
        assert F.normalize(half, dim=-1).dtype == torch.float32
    with torch.autocast("cpu", dtype):
        assert F.normalize(half, dim=-1).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", HEADS)
def test_a_step(name, dtype):
    model = SNCLR(backbone=RESNET, neck=neck(), head=HEADS[name]).train()
    model.head.queue.enqueue(torch.randn(64, D))
    with cuda_autocast(dtype):
        loss = model.loss(list(torch.randn(2, 8, 3, 16, 16)), None)["loss"]
    assert loss.dtype == torch.float32
    loss.backward()
    gradient = model.backbone.conv1.weight.grad
    assert gradient.isfinite().all() and gradient.any()
    if name != "K = 0":
        assert model.head.queue.commit()
