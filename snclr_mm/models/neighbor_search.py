"""Exact top-K search of unit rows, in a plain and in two fast versions."""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hardware import check_memory, has_fast_bfloat16
from .neighbor_products import neighbor_products

BACKENDS = ("auto", "plain", "streaming", "blocks")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")

BLOCK = 32  # rows that share one maximum
# Below this many products a single matrix product and top-K is faster (measured).
SMALL = 2**21
# Similarities held at a time: they should stay in a CPU's cache, or fill a GPU.
CPU_CHUNK, GPU_CHUNK = 2**21, 2**24


def search_neighbors(
    keys: Tensor, rows: Tensor, k: int, backend: str = "auto", precision: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Find the k rows of largest inner product with each key.

    - ``plain``: all similarities in one matrix, and its top-K.
    - ``streaming``: chunks of rows against all keys; only what may still enter the top
      K is looked at, which the maxima of blocks of rows tell. Waits for the device.
    - ``blocks``: the same chunks with fixed shapes: of each chunk the k blocks with the
      largest maxima, and the top-K inside them. Never waits for the device.
    - ``auto``: ``plain`` for few products, else ``streaming`` on a CPU and ``blocks``
      on other devices; ``plain``, with one warning, where that fails.

    A reduced precision serves to shortlist rows, which are then compared in the rows'
    own precision. In ``streaming`` the shortlist holds every row that rounding may have
    hidden, so that the result is exact; in ``blocks`` it has 2k + 32 rows, more than
    that within rounding of the k-th (2e-3 for float16) could hide one.

    Args:
        keys (Tensor): Unit rows, [m, d].
        rows (Tensor): Unit rows, [R, d], of the keys' dtype.
        k (int): 1 to R.
        backend (str): As above. Defaults to ``'auto'``.
        precision (str): Of the first look: ``'float32'``, ``'float16'``,
            ``'bfloat16'``, or ``'auto'``: float16 on GPUs, bfloat16 on CPUs that have
            instructions for it, else float32. Float64 rows are searched in float64.
            Defaults to ``'auto'``.

    Returns:
        tuple[Tensor, Tensor]: Similarity [m, k] and row [m, k] (int64), best first;
        equal similarities in any order.

    Raises:
        ValueError: If backend or precision is unknown.
        MemoryError: If the plain version's similarities cannot fit.
    """
    check_search(backend, precision)
    automatic = backend == "auto"
    # A shortlist as long as a block list, or chunk, would not be one.
    if automatic and (len(keys) * len(rows) < SMALL or 16 * BLOCK * k > len(rows)):
        backend = "plain"
    elif automatic:
        backend = "streaming" if keys.device.type == "cpu" else "blocks"
    if backend == "plain":
        return _search_plain(keys, rows, k)
    search = _search_streaming if backend == "streaming" else _search_blocks
    try:
        return search(keys, rows, k, _first_look(rows, precision))
    except RuntimeError as error:
        if not automatic or isinstance(error, torch.OutOfMemoryError):
            raise
        warnings.warn(
            f"The {backend} neighbor search failed, the plain one goes on: {error}",
            stacklevel=2,
        )
        return _search_plain(keys, rows, k)


def check_search(backend: str, precision: str) -> None:
    """Raise ValueError unless both are known."""
    for name, value, allowed in (
        ("backend", backend, BACKENDS),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise ValueError(
                f"{name}={value!r} is unknown: use one of {allowed} (config key "
                f"model.head.queue.search_{name})."
            )


def _first_look(rows: Tensor, precision: str) -> torch.dtype:
    if rows.dtype != torch.float32:
        return rows.dtype
    if precision != "auto":
        return getattr(torch, precision)
    if rows.device.type == "cpu":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    return torch.float16


def _search_plain(keys: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    check_memory(
        len(keys) * len(rows) * rows.element_size(),
        rows.device,
        f"The similarities of {len(keys)} keys and {len(rows)} queue rows",
        "set model.head.queue.search_backend='auto', or a shorter queue "
        "(model.head.queue.length).",
    )
    return (keys @ rows.T).topk(k, dim=1)


def _chunk_rows(keys: Tensor, at_least: int) -> int:
    elements = CPU_CHUNK if keys.device.type == "cpu" else GPU_CHUNK
    size = max(elements // len(keys), at_least, BLOCK)
    return math.ceil(size / BLOCK) * BLOCK


def _search_blocks(
    keys: Tensor, rows: Tensor, k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    exact = dtype == rows.dtype
    keep = min(k if exact else 2 * k + 32, len(rows))
    queries = keys.to(dtype)
    found, index = [], []
    size = _chunk_rows(keys, at_least=keep * BLOCK)
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size].to(dtype)
        similarity = queries @ chunk.T
        whole = len(chunk) // BLOCK * BLOCK
        if whole < len(chunk) or whole <= keep * BLOCK:
            best = similarity.topk(min(keep, len(chunk)), dim=1)
            found.append(best.values)
            index.append(best.indices + start)
            continue
        blocks = similarity.view(len(keys), -1, BLOCK)
        best = blocks.amax(2).topk(keep, dim=1, sorted=False).indices  # [m, keep]
        inside = blocks.gather(1, best[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
        best_inside = inside.topk(keep, dim=1, sorted=False)
        block = best.gather(1, best_inside.indices // BLOCK)
        found.append(best_inside.values)
        index.append(start + block * BLOCK + best_inside.indices % BLOCK)
    best = torch.cat(found, dim=1).topk(keep, dim=1)
    index = torch.cat(index, dim=1).gather(1, best.indices)
    return (best.values, index) if exact else _rerank(keys, rows, index, k)


def _rerank(
    keys: Tensor, rows: Tensor, index: Tensor, k: int, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compare a shortlist [m, L] in the rows' own precision: its k best."""
    similarity = neighbor_products(keys, rows, index)
    if valid is not None:
        similarity = similarity.masked_fill(~valid, -torch.inf)
    best = similarity.topk(k, dim=1)
    return best.values, index.gather(1, best.indices)


def _search_streaming(
    keys: Tensor, rows: Tensor, k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    m, device = len(keys), keys.device
    exact = dtype == rows.dtype
    queries = keys.to(dtype)
    below = _uncertainty(keys, queries)
    limit = k if exact else 5 * k + 64
    score = keys.new_empty(m, 0)  # the shortlist, best first, padded with -inf
    index = torch.empty(m, 0, dtype=torch.long, device=device)
    bar = None  # [m], what a row must reach to be among the k best, for all we know
    dropped = keys.new_full((m,), -torch.inf)
    size = _chunk_rows(keys, at_least=8 * k)
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size].to(dtype)
        similarity = chunk @ queries.T  # [c, m]: maxima over rows are then fast
        if len(chunk) % BLOCK:
            similarity = F.pad(
                similarity, (0, 0, 0, -len(chunk) % BLOCK), value=-torch.inf
            )
        blocks = similarity.view(-1, BLOCK, m)
        if bar is None:
            # The k-th of some maxima is at most the k-th of all, and found sooner.
            few = similarity.view(-1, BLOCK // 8, m).amax(1).T.to(keys.dtype)
            bar = keys.new_full((m,), -2.0)
            if few.shape[1] >= k:
                bar = below(few.topk(k, dim=1).values[:, -1])
        key, block = (blocks.amax(1) >= bar).T.nonzero().unbind(1)
        if start > 0 and not exact and 2 * len(key) > m * len(blocks):
            # Rows too much alike for this precision, which then shortlists nothing.
            return _search_streaming(keys, rows, k, rows.dtype)
        key, value, row = _above(blocks, bar, key, block)
        if len(key) == 0:
            continue
        counts = key.bincount(minlength=m)
        place = torch.arange(len(key), device=device)
        place -= (counts.cumsum(0) - counts)[key]
        width = int(counts.max())
        new_score = score.new_full((m, width), -torch.inf)
        new_index = index.new_zeros(m, width)
        new_score[key, place] = value.to(keys.dtype)
        new_index[key, place] = row + start
        score = torch.cat([score, new_score], dim=1)
        index = torch.cat([index, new_index], dim=1)
        score, order = score.topk(min(limit + 1, score.shape[1]), dim=1)
        index = index.gather(1, order)
        if score.shape[1] > limit:
            dropped = torch.maximum(dropped, score[:, limit])
            score, index = score[:, :limit], index[:, :limit]
        if score.shape[1] >= k:
            bar = below(score[:, k - 1])
        used = int((score >= bar[:, None]).sum(1).max())
        score, index = score[:, :used], index[:, :used]
    if exact:
        return score[:, :k], index[:, :k]
    values, index = _rerank(keys, rows, index, k, valid=score > -torch.inf)
    again = (dropped >= bar).nonzero()[:, 0]  # the shortlist was too short
    if len(again) > 0:
        values[again], index[again] = _search_streaming(
            keys[again], rows, k, rows.dtype
        )
    return values, index


def _above(
    blocks: Tensor, bar: Tensor, key: Tensor, block: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What reaches its key's bar in the named blocks: key, similarity, row; by key."""
    inside = blocks[block, :, key]  # [hits, BLOCK]
    hit, place = (inside >= bar[key, None]).nonzero().unbind(1)
    return key[hit], inside[hit, place], block[hit] * BLOCK + place


def _uncertainty(keys: Tensor, queries: Tensor):
    """Where rounding may have put the rows that are truly among the k best.

    Of unit vectors y and c, rounded to y' and c', with unit roundoff u,
    |y'·c' - y·c| <= |y - y'| |c'| + |y| |c - c'| + d 2^-23 <= e, and the product is
    rounded by u times its size. So the k-th best is at least a - e - u|a| if a is the
    k-th best of the rounded products, and its own rounded product the same below that.

    Returns:
        Callable: a [m] to the lowest rounded product that matters, [m].
    """
    if queries.dtype == keys.dtype:
        return lambda kth: kth
    u = torch.finfo(queries.dtype).eps / 2
    of_keys = (keys - queries.to(keys.dtype)).norm(dim=1)
    e = 1.01 * (of_keys + u) + keys.shape[1] * 2**-23

    def below(kth: Tensor) -> Tensor:
        return kth - 2 * e - 2.1 * u * (kth.abs() + 2 * e)

    return below
