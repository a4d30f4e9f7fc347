"""Products of each query with its own neighbors, without a [n, K, d] tensor."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Neighbors gathered at a time: bounds the memory, and stays in a CPU's cache.
CHUNK_ELEMENTS = 2**20


def neighbor_products(query: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Inner products of query i with the rows that ``index[i]`` names.

    Args:
        query (Tensor): [n, d]; gradient flows through it.
        rows (Tensor): [R, d], taken as constant; cast to the query's dtype.
        index (Tensor): Rows, [n, K], integer.

    Returns:
        Tensor: [n, K], of the query's dtype.
    """
    return _NeighborProducts.apply(query, rows, index)


class _NeighborProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index)
        out = query.new_empty(index.shape)
        for part, neighbors in _gather(rows, index, query.dtype):
            torch.bmm(neighbors, query[part, :, None], out=out[part, :, None])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, index = ctx.saved_tensors
        grad_query = grad.new_empty(len(index), rows.shape[1])
        for part, neighbors in _gather(rows, index, grad.dtype):
            torch.bmm(grad[part, None], neighbors, out=grad_query[part, None])
        return grad_query, None, None


def _gather(rows: Tensor, index: Tensor, dtype: torch.dtype):
    """Neighbors [p, K, d] of a few queries at a time, and which queries."""
    n, num_neighbors = index.shape
    size = max(1, CHUNK_ELEMENTS // max(1, num_neighbors * rows.shape[1]))
    if rows.device.type != "cpu":
        size *= 16
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield part, rows[index[part]].to(dtype)
