"""Products of each query with its own neighbors, without a [n, K, d] tensor."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def neighbor_products(
    query: Tensor, rows: Tensor, index: Tensor, offsets: Tensor | None = None
) -> Tensor:
    """Inner products of query i with the rows that ``index[i]`` names.

    Args:
        query (Tensor): [n, d]; gradient flows through it.
        rows (Tensor): [R, d], taken as constant; cast to the query's dtype.
        index (Tensor): Rows, [n, K], integer; or [s], with as many of each query as
            ``offsets`` says.
        offsets (Tensor, optional): Where each query's part of ``index`` starts, [n].

    Returns:
        Tensor: Of the query's dtype and the index's shape.
    """
    return _NeighborProducts.apply(query, rows.to(query.dtype), index, offsets)


class _NeighborProducts(torch.autograd.Function):
    # Sums of rows weighted per query are what an embedding bag computes, and products
    # with rows are its gradient for the weights: fused, and row by row.

    @staticmethod
    def forward(ctx, query, rows, index, offsets) -> Tensor:
        ctx.save_for_backward(rows, index)
        ctx.offsets = offsets
        if index.numel() == 0:
            return query.new_zeros(index.shape)
        # Out of inference mode, where nothing has a gradient; tensors from there may
        # enter as copies only.
        with torch.inference_mode(False), torch.enable_grad():
            query, rows, index, offsets = (
                t.clone() if t is not None and t.is_inference() else t
                for t in (query, rows, index, offsets)
            )
            weight = query.new_zeros(index.shape, requires_grad=True)
            # Rows get no gradient; before torch 2.7 a bag of rows that need none has
            # none for its weights either.
            rows = rows.detach().requires_grad_()
            total = _weighted_sum(weight, rows, index, offsets)
            return torch.autograd.grad(total, weight, query.detach())[0].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        rows, index = ctx.saved_tensors
        if index.numel() == 0:
            return grad.new_zeros(len(index), rows.shape[1]), None, None, None
        return _weighted_sum(grad, rows, index, ctx.offsets), None, None, None


def _weighted_sum(weight, rows, index, offsets) -> Tensor:
    return F.embedding_bag(
        index, rows, offsets, per_sample_weights=weight.contiguous(), mode="sum"
    )
