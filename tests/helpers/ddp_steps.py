"""Steps of SNCLR on a rank's share of the images, under DDP and with SyncBN."""

import warnings
from contextlib import ExitStack
from unittest import mock

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope

import snclr_mm  # noqa: F401
from snclr_mm.models import SNCLR

from .batch_norm_kernels import batch_norm_kernels
from .models import RESNET, D, neck, predictor, soft_head

IMAGES, STEPS = 12, 4


def train_share(rank, device, norms):
    """:func:`train` with each norm; on CPUs with plain operations for its kernels."""
    with ExitStack() as stack:
        if device == "cpu":
            stack.enter_context(batch_norm_kernels())
            check = "_passing_sync_batchnorm_handle"
            stack.enter_context(
                mock.patch.object(MMDistributedDataParallel, check, lambda *_: None)
            )
        else:
            device = f"cuda:{rank % torch.cuda.device_count()}"
        return [train(device, norm) for norm in norms]


def train(device, norm):
    """Losses, weights, queue, and how often the last forward and backward waited.

    Drawn images, the same whatever the number of ranks, in double precision.
    """
    init_default_scope("mmpretrain")
    MessageHub.get_instance("ddp_steps").update_info("max_iters", 100)
    torch.manual_seed(0)
    norm_cfg = dict(type="BN1d" if norm == "BN" else norm)
    model = SNCLR(
        backbone=dict(RESNET, norm_cfg=dict(type=norm)),
        neck=neck(norm_cfg=norm_cfg),
        head=soft_head(
            predictor=dict(predictor(), norm_cfg=norm_cfg),
            queue=dict(type="NeighborQueue", length=40, dim=D),
        ),
    )
    model.to(device).double()
    wrapped = model
    if get_world_size() > 1:
        ids = None if device == "cpu" else [torch.device(device).index]
        wrapped = MMDistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False
        )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator, losses = torch.Generator().manual_seed(1), []
    n = IMAGES // get_world_size()
    part = slice(n * get_rank(), n * (get_rank() + 1))
    for step in range(STEPS):
        views = torch.randn(2, IMAGES, 3, 16, 16, generator=generator).double()
        views = list(views[:, part].to(device))
        with warnings.catch_warnings(record=True) as waits, ExitStack() as stack:
            if device != "cpu" and step == STEPS - 1:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                stack.callback(torch.cuda.set_sync_debug_mode, "default")
            loss = wrapped(views, None, mode="loss")["loss"]
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        assert model.head.queue.commit()
        losses.append(loss.item())
    messages = [str(warning.message) for warning in waits]
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    return losses, state, [m for m in messages if is_wait(m)]


def is_wait(warning):
    """Whether torch's sync debug mode warns of a wait, and not of itself."""
    return "called a synchronizing CUDA operation" in warning
