"""Exchange of rows between the ranks."""

import torch
import torch.distributed as dist
from mmengine.dist import all_reduce, get_rank, get_world_size
from torch import Tensor

# torch 2.13 has renamed it.
NEW, OLD = "all_gather_single", "all_gather_into_tensor"
ALL_GATHER = NEW if hasattr(dist, NEW) else OLD


def gather_rows(rows: Tensor) -> Tensor:
    """Collect the rows of all ranks, in order, without gradient.

    Args:
        rows (Tensor): [..., n, d], of the same shape on every rank; travels in its own
            dtype.

    Returns:
        Tensor: [..., N, d] with N = n x world size, the same on every rank.
    """
    rows = rows.detach()
    if get_world_size() == 1:
        return rows
    # Ranks are joined along the first dimension, which both gloo and NCCL take.
    everything = rows.new_empty(get_world_size() * rows.shape[0], *rows.shape[1:])
    getattr(dist, ALL_GATHER)(everything, rows.contiguous())
    if rows.dim() == 2:
        return everything
    everything = everything.unflatten(0, (get_world_size(), -1))
    return everything.movedim(0, -3).flatten(-3, -2)


class GatherRows(torch.autograd.Function):
    """:func:`gather_rows` whose backward sums what all ranks say about a row."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        return gather_rows(rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        all_reduce(grad)
        return grad.chunk(get_world_size(), dim=-2)[get_rank()]
