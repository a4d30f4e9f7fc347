"""Count the device operations of a training step, without running them.

On PyTorch's ``meta`` device tensors have shapes and no values: every operation is
called as on a GPU and computes nothing. Whatever would make the host wait for values
(``item``, ``nonzero``, a boolean mask as index) raises there by itself.
"""

from collections.abc import Callable
from contextlib import contextmanager
from unittest import mock

import torch
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from snclr_mm.models import SNCLR


def called_operations(step: Callable[[], None]) -> list[str]:
    """Names of the aten operations that ``step`` calls, in forward and backward.

    Without views (``view``, ``expand``, ``detach``, ...), which launch nothing on a
    device.
    """

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if not operation.is_view:
                names.append(operation.name())
            return operation(*args, **(kwargs or {}))

    names = []
    with Recorder(), autocast_knows_meta():
        step()
    return names


def operations_beyond_mocov3(
    images: int = 256, num_neighbors: int = 30, queue_length: int = 65536
) -> int:
    """Count what SNCLR's step calls beyond the stock MoCoV3's, on one rank.

    The models are ResNet-18 with the projector and predictor of MoCo v3, the queue is
    full, and a step is the loss of two views and its backward pass. The momentum
    encoders keep their weights: how they are updated is counted in neither model.

    Raises:
        NotImplementedError | RuntimeError: If a step waits for the device.
    """
    shared = dict(
        backbone=dict(type="ResNet", depth=18),
        neck=_projector(in_channels=512, with_avg_pool=True, with_last_bn=True),
    )
    predictor = _projector(in_channels=256, with_avg_pool=False, with_last_bn=False)
    ours = SNCLR(
        **shared,
        head=dict(
            type="SoftNeighborHead",
            predictor=predictor,
            queue=dict(
                type="NeighborQueue", length=queue_length, dim=256, init="random"
            ),
            attention=dict(type="CrossAttentionNeck", in_channels=256),
            num_neighbors=num_neighbors,
            temperature=1.0,
        ),
    )
    stock = MODELS.build(
        dict(
            type="MoCoV3",
            **shared,
            head=dict(
                type="MoCoV3Head",
                predictor=predictor,
                loss=dict(type="CrossEntropyLoss"),
                temperature=1.0,
            ),
        )
    )
    return _count_step(ours, images) - _count_step(stock, images)


def _count_step(model: nn.Module, images: int) -> int:
    model.to("meta").train()
    views = [torch.empty(images, 3, 32, 32, device="meta") for _ in range(2)]
    with mock.patch.object(model.momentum_encoder, "update_parameters"):
        return len(
            called_operations(lambda: model.loss(views, None)["loss"].backward())
        )


def _projector(in_channels: int, with_avg_pool: bool, with_last_bn: bool) -> dict:
    return dict(
        type="NonLinearNeck",
        in_channels=in_channels,
        hid_channels=4096,
        out_channels=256,
        with_bias=False,
        with_last_bn=with_last_bn,
        with_last_bn_affine=False,
        with_last_bias=False,
        with_avg_pool=with_avg_pool,
        norm_cfg=dict(type="BN1d"),
    )


@contextmanager
def autocast_knows_meta():
    """Let autocast take ``meta`` for a device: PyTorch's raises for it.

    It is off in the step, as it is where nobody turns it on.
    """
    autocast, is_enabled = torch.autocast, torch.is_autocast_enabled

    def on(device_type: str) -> str:
        return "cpu" if device_type == "meta" else device_type

    with (
        mock.patch.object(
            torch, "autocast", lambda kind, *args, **kw: autocast(on(kind), *args, **kw)
        ),
        mock.patch.object(
            torch, "is_autocast_enabled", lambda *kind: is_enabled(*map(on, kind))
        ),
    ):
        yield
