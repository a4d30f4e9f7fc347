"""Top-K search of rows, a chunk of them at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows that share one maximum.
BLOCK = 16
# Similarities held at a time: they should stay in a CPU's cache, or fill a GPU.
CPU_CHUNK, GPU_CHUNK = 2**22, 2**24


def top_k(
    queries: Tensor, rows: Tensor, k: int, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Find the k rows of largest inner product with each query.

    Shapes depend on the sizes alone, so nothing waits for the device. On GPUs the first
    pass is in half precision: a shortlist of 2k + 32 rows is scored again in the rows'
    precision. More rows than that within half precision's rounding of the k-th best
    (float16 and unit rows: at most 4e-3) may take each other's place.

    Args:
        queries (Tensor): [m, d].
        rows (Tensor): [R, d], of the queries' dtype.
        k (int): 1 to R.
        dtype (torch.dtype, optional): Of the products with all rows. Defaults to
            float16 for float32 rows on a GPU, else the rows' dtype, which is exact.

    Returns:
        tuple[Tensor, Tensor]: Product [m, k] and row [m, k] (int64), best first; equal
        products in any order.
    """
    on_cpu = rows.device.type == "cpu"
    if dtype is None:
        half = not on_cpu and rows.dtype == torch.float32
        dtype = torch.float16 if half else rows.dtype
    exact = dtype == rows.dtype
    keep = k if exact else min(2 * k + 32, len(rows))
    size = (CPU_CHUNK if on_cpu else GPU_CHUNK) // max(1, len(queries))
    queries_cast, size = queries.to(dtype), max(size, 2 * BLOCK * keep)
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size].to(dtype)
        found, row = _top_k_by_blocks(queries_cast @ chunk.T, keep)
        if start == 0:
            best, index = found, row
        else:
            best = torch.cat([best, found], dim=1)
            index = torch.cat([index, row + start], dim=1)
            best, place = best.topk(keep, dim=1, sorted=False)
            index = index.gather(1, place)
    if not exact:
        few = max(1, GPU_CHUNK // (keep * rows.shape[1]))  # [few, keep, d] at a time
        parts = zip(queries.split(few), index.split(few), strict=True)
        best = torch.cat([torch.einsum("md,mkd->mk", q, rows[i]) for q, i in parts])
    best, place = best.topk(k, dim=1)
    return best, index.gather(1, place)


def _top_k_by_blocks(products: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best are in the k blocks with the largest maxima; in any order."""
    columns = products.shape[1]
    if columns <= 2 * BLOCK * k:
        return products.topk(min(k, columns), dim=1, sorted=False)
    if columns % BLOCK:
        products = F.pad(products, (0, -columns % BLOCK), value=-torch.inf)
    # A block is every c-th column: its maximum is then one over whole rows, which is
    # much faster than one over neighboring columns.
    blocks = products.unflatten(1, (BLOCK, -1))  # [m, BLOCK, c]
    block = blocks.amax(1).topk(k, dim=1, sorted=False).indices  # [m, k]
    inside = blocks.gather(2, block[:, None].expand(-1, BLOCK, -1)).flatten(1)
    best, place = inside.topk(k, dim=1, sorted=False)
    column = block.gather(1, place % k) + place // k * blocks.shape[2]
    return best, column
