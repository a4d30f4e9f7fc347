import itertools
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from helpers.batch_norm_kernels import batch_norm_kernels
from helpers.ranks import run_on_ranks
from helpers.tiny import REPOSITORY
from helpers.waits import counted_waits
from mmcv.cnn import build_norm_layer
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.modules import _functions
from torch.testing._internal.distributed.fake_pg import FakeStore

from snclr_mm.models import NonBlockingSyncBN, non_blocking_sync_bn

IMAGES = (3, 1, 4)  # of each rank
CASES = [
    (shape, affine)
    for shape, affine in itertools.product([(5,), (5, 3, 2), (1, 4, 4)], [True, False])
]


def make_batch(shape):
    torch.manual_seed(0)
    x, weight = torch.randn(2, sum(IMAGES), *shape, dtype=torch.float64)
    return 3 + 2 * x, weight


def steps(norm, x, weight, function=None):
    """Outputs and gradients of two steps, and the running statistics."""
    results = []
    for scale in (1.0, 0.5):
        x = (scale * x).detach().requires_grad_()
        y = norm(x)
        norm.zero_grad()
        (y.sin() * weight).sum().backward()
        # Clones: torch.save keeps views together.
        results += [y.detach(), x.grad.clone(), *(p.grad for p in norm.parameters())]
    return results, [b.clone() for b in norm.buffers()]


def rank_steps(rank):
    first = sum(IMAGES[:rank])
    part = slice(first, first + IMAGES[rank])
    results = []
    with batch_norm_kernels():
        for shape, affine in CASES:
            x, weight = make_batch(shape)
            if len(shape) == 3:
                x = x.to(memory_format=torch.channels_last)
            norm = NonBlockingSyncBN(shape[0], affine=affine).double()
            ours = steps(norm, x[part], weight[part])
            with mock.patch.object(
                non_blocking_sync_bn, "_SyncBatchNorm", _functions.SyncBatchNorm
            ):
                norm = NonBlockingSyncBN(shape[0], affine=affine).double()
                stock = steps(norm, x[part], weight[part])
            results.append((ours, stock))
    return results


def test_equals_torch_and_batch_norm_over_the_whole_batch():
    ranks = run_on_ranks(len(IMAGES), rank_steps)
    for (shape, affine), *results in zip(CASES, *ranks, strict=True):
        norm = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
        expected, buffers = steps(
            norm(shape[0], affine=affine).double(), *make_batch(shape)
        )
        parts = zip(*(ours[0] for ours, _ in results), strict=True)
        for whole, part in zip(expected, parts, strict=True):
            # Gradients of weight and bias are of each rank's own images.
            joined = sum(part) if whole.shape == shape[:1] else torch.cat(part)
            torch.testing.assert_close(joined, whole)
        for ours, stock in results:
            torch.testing.assert_close(ours[1], buffers)
            torch.testing.assert_close(ours, stock, rtol=0, atol=0)


@pytest.fixture
def two_ranks():
    """A group whose other rank has the same values."""

    def gather(everything, own, group=None):
        everything.copy_(own.repeat(2))

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    name = non_blocking_sync_bn.ALL_GATHER
    with batch_norm_kernels(), mock.patch.object(dist, name, gather):
        yield
    dist.destroy_process_group()


def test_nothing_waits_for_the_device(two_ranks):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        norm = NonBlockingSyncBN(3).to("meta")
        x = torch.empty(4, 3, 2, 2, device="meta", dtype=dtype, requires_grad=True)
        with counted_waits() as asked:
            y = norm(x)
            y.sum().backward()
        assert not asked
        assert y.dtype == x.grad.dtype == dtype
    with (
        mock.patch.object(
            non_blocking_sync_bn, "_SyncBatchNorm", _functions.SyncBatchNorm
        ),
        mock.patch.object(
            _functions.dist, non_blocking_sync_bn.ALL_GATHER, lambda *_, **__: None
        ),
        pytest.raises((NotImplementedError, RuntimeError), match="nonzero"),
    ):
        norm(x)  # torch's does


def test_an_empty_batch_is_refused(two_ranks):
    with pytest.raises(ValueError, match=r"empty.*drop_last=True.*'SyncBN'"):
        NonBlockingSyncBN(3)(torch.zeros(0, 3, 2, 2))


def test_alone_and_in_evaluation_it_is_torchs(two_ranks):
    norm = NonBlockingSyncBN(3).eval()
    x = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(norm(x), nn.BatchNorm2d(3).eval()(x))
    dist.destroy_process_group()
    try:
        torch.testing.assert_close(norm.train()(x), nn.BatchNorm2d(3)(x))
    finally:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)


def test_configs_name_it():
    name, norm = build_norm_layer(dict(type="NonBlockingSyncBN"), 4, postfix=1)
    assert name == "bn1" and isinstance(norm, NonBlockingSyncBN)
    assert type(revert_sync_batchnorm(norm)).__name__ == "_BatchNormXd"
    configs = REPOSITORY / "configs"
    cfg = Config.fromfile(configs / "snclr_r50_8xb256.py")
    variant = Config.fromfile(configs / "_base_/variants/non_blocking_sync_bn.py")
    ours, stock = (
        [m for m in MODELS.build(model).modules() if isinstance(m, nn.SyncBatchNorm)]
        for model in (
            Config._merge_a_into_b(variant.non_blocking_sync_bn, cfg.model.copy()),
            cfg.model,
        )
    )
    assert len(ours) == len(stock) == 111
    assert all(isinstance(norm, NonBlockingSyncBN) for norm in ours)
