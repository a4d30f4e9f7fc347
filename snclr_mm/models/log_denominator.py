"""The logarithm of the objective's denominator, streamed over the candidates."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at a time: they should stay in a CPU's cache, or fill a GPU.
CPU_CHUNK, GPU_CHUNK = 2**19, 2**23


def log_denominator(
    query: Tensor,
    rows: Tensor,
    temperature: float,
    index: Tensor | None = None,
    log_count: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Compute :math:`\log \sum_j c_j \exp(z · r_j / τ)` for each query.

    It is the log-sum-exp of an attention row whose keys are the candidates, and the
    attention's output is its gradient: both come out of one pass over chunks of rows,
    so that neither pass holds an [n, R] matrix and backward computes nothing anew.

    Args:
        query (Tensor): z, [n, d]; gradient flows through it.
        rows (Tensor): r, [R, d], taken as constant.
        temperature (float): τ > 0.
        index (Tensor, optional): Which rows count, [U], integer; all by default.
        log_count (Tensor, optional): log c_j of those rows, [U]; -inf leaves a row out.
            0 by default.
        dtype (torch.dtype, optional): Of the matrix products; sums and exponentials
            keep the query's. Defaults to the query's.

    Returns:
        Tensor: [n], of the query's dtype.
    """
    return _LogDenominator.apply(query, rows, temperature, index, log_count, dtype)


class _LogDenominator(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, rows, temperature, index, log_count, dtype) -> Tensor:
        dtype = query.dtype if dtype is None else dtype
        n, needs_grad = len(query), ctx.needs_input_grad[0]
        z = (query / temperature).to(dtype)
        top = query.new_full((n, 1), torch.finfo(query.dtype).min)
        total = query.new_zeros(n, 1)
        mean = torch.zeros_like(query) if needs_grad else None
        length = len(rows) if index is None else len(index)
        elements = CPU_CHUNK if query.device.type == "cpu" else GPU_CHUNK
        size = max(64, elements // max(1, n))
        if dtype == torch.float16:
            size = min(size, 2**15)  # sums of terms up to 1 stay below 65504
        for start in range(0, length, size):
            part = slice(start, start + size)
            if index is None:
                chunk = rows[part].to(dtype)
            else:
                chunk = rows.index_select(0, index[part]).to(dtype)
            logits = (z @ chunk.T).to(query.dtype)
            if log_count is not None:
                logits += log_count[part]
            new_top = torch.maximum(top, logits.amax(1, keepdim=True))
            decay = (top - new_top).exp_()
            terms = logits.sub_(new_top).exp_()
            total = total.mul_(decay).add_(terms.sum(1, keepdim=True))
            top = new_top
            if needs_grad:
                mean.mul_(decay).add_(terms.to(dtype) @ chunk)
        if needs_grad:
            ctx.save_for_backward(mean.div_(total * temperature))
        return (top + total.log())[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        (gradient,) = ctx.saved_tensors
        return grad[:, None] * gradient, None, None, None, None, None
