"""The logarithm of the objective's denominator, streamed over the candidates."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at a time: they should stay in a CPU's cache, or fill a GPU.
CPU_CHUNK, GPU_CHUNK = 2**19, 2**23


def log_denominator(
    query: Tensor,
    keys: Tensor,
    rows: Tensor,
    index: Tensor | None,
    temperature: float,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Compute :math:`\log \sum_j \exp(z · r_j / τ)` over keys and indexed rows.

    It is the log-sum-exp of an attention row whose keys are the candidates, and the
    attention's output is its gradient: both come out of one pass over chunks of rows,
    so that neither pass holds all logits and backward computes nothing anew. On CPUs,
    and where most rows are named, a row that ``index`` names c times is scored once,
    with log c added to its logit.

    Args:
        query (Tensor): z, [m, d]; gradient flows through it.
        keys (Tensor): [N, d], taken as constant.
        rows (Tensor): [R, d], taken as constant.
        index (Tensor, optional): Which rows count, integer, of any shape; a row that
            is named several times counts so often. None: each row counts once.
        temperature (float): τ > 0.
        dtype (torch.dtype, optional): Of the products with ``rows``; sums and
            exponentials keep the query's. Defaults to the query's.

    Returns:
        Tensor: [m], of the query's dtype.
    """
    on_cpu = rows.device.type == "cpu"
    named = (None, None) if index is None else count_rows(index, rows, not on_cpu)
    return _LogDenominator.apply(
        query, keys, rows, *named, temperature, dtype or query.dtype
    )


def count_rows(
    index: Tensor, rows: Tensor, fixed_shapes: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Which rows are named, and the logarithm of how often.

    Args:
        index (Tensor): Integer, of any shape.
        rows (Tensor): [R, d].
        fixed_shapes (bool): Let the results' shapes not depend on the values, so that
            nothing waits for the device.

    Returns:
        tuple: Rows [U], None for all R; and log of their counts [U], of the rows'
        dtype, None where each entry counts once. A row that is never named has -inf.
    """
    index = index.flatten()
    if not fixed_shapes:
        distinct, count = index.unique(return_counts=True)
        return distinct, count.to(rows.dtype).log()
    if len(index) <= len(rows) // 2:
        return index, None
    count = rows.new_zeros(len(rows))
    return None, count.index_add_(0, index, rows.new_ones(len(index))).log()


class _LogDenominator(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, keys, rows, index, log_count, temperature, dtype) -> Tensor:
        z = query / temperature
        top = query.new_full((len(z), 1), torch.finfo(query.dtype).min)
        total = torch.zeros_like(top)
        needs_grad = ctx.needs_input_grad[0]
        mean = torch.zeros_like(query) if needs_grad else None
        size = CPU_CHUNK if query.device.type == "cpu" else GPU_CHUNK
        size = max(64, size // max(1, len(z)))
        for chunk, log_weight in _chunks(keys, rows, index, log_count, dtype, size):
            logits = (z.to(chunk.dtype) @ chunk.T).to(z.dtype)
            if log_weight is not None:
                logits += log_weight
            new_top = torch.maximum(top, logits.amax(1, keepdim=True))
            decay = (top - new_top).exp_()
            terms = logits.sub_(new_top).exp_()
            total = total.mul_(decay).add_(terms.sum(1, keepdim=True))
            top = new_top
            if needs_grad:
                mean.mul_(decay).add_(terms.to(chunk.dtype) @ chunk)
        if needs_grad:
            ctx.save_for_backward(mean.div_(total * temperature))
        return (top + total.log())[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        (gradient,) = ctx.saved_tensors
        return grad[:, None] * gradient, None, None, None, None, None, None


def _chunks(
    keys: Tensor,
    rows: Tensor,
    index: Tensor | None,
    log_count: Tensor | None,
    dtype: torch.dtype,
    size: int,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Keys, then named rows, at most ``size`` at a time, with their log-counts."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size], None
    if dtype == torch.float16:
        size = min(size, 2**15)  # sums of terms up to 1 stay below 65504
    length = len(rows) if index is None else len(index)
    for start in range(0, length, size):
        part = slice(start, start + size)
        chunk = rows[part] if index is None else rows.index_select(0, index[part])
        yield chunk.to(dtype), None if log_count is None else log_count[part]
