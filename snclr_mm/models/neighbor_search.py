"""Top-K search of unit rows, in a plain and in two fast versions."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hardware import check_memory, has_fast_bfloat16
from .backends import check_backend, fall_back
from .neighbor_products import neighbor_products

BACKENDS = ("auto", "plain", "streaming", "blocks")

BLOCK = 16  # rows that share one maximum
# With fewer products, or fewer rows per neighbor, the plain version is as fast
# (measured on a CPU).
SMALL, ROWS_PER_NEIGHBOR = 2**21, 256
# Above it a plain search's memory counts, 4 bytes each.
MANY = 2**26
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
    - ``auto``: ``plain`` for few products or many neighbors, else ``streaming`` on a
      CPU and ``blocks`` on other devices; ``plain``, with one warning, where that
      fails.

    A reduced precision serves to shortlist rows, which are then compared in the rows'
    own precision. In ``streaming`` the shortlist holds every row that rounding may have
    hidden, so that the result is exact; in ``blocks`` it has 2k + 32 rows, and where
    more lie within rounding of the k-th (float16: at most 4e-3, typically a tenth of
    that) one of them may take the place of another. With ``precision='float32'``
    nothing is rounded, unless TF32 is allowed in torch.backends.cuda.matmul.

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
    if len(keys) == 0:
        return keys.new_zeros(0, k), torch.zeros(0, k, dtype=torch.long).to(keys.device)
    automatic = backend == "auto"
    if automatic:
        products = len(keys) * len(rows)
        many_neighbors = len(rows) < ROWS_PER_NEIGHBOR * k and products < MANY
        few = products < SMALL or many_neighbors
        fast = "streaming" if keys.device.type == "cpu" else "blocks"
        backend = "plain" if few else fast
    if backend == "plain":
        return _search_plain(keys, rows, k)
    version = _search_streaming if backend == "streaming" else _search_blocks
    search = partial(version, keys, rows, k, _first_look(rows, precision))
    if not automatic:
        return search()
    return fall_back(
        f"{backend} neighbor search", search, partial(_search_plain, keys, rows, k)
    )


def check_search(backend: str, precision: str) -> None:
    """Raise ValueError unless both are known."""
    check_backend(backend, precision, BACKENDS, "model.head.queue.search_")


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
    if exact:
        return best.values, index
    best = neighbor_products(keys, rows, index).topk(k, dim=1)
    return best.values, index.gather(1, best.indices)


def _search_streaming(
    keys: Tensor, rows: Tensor, k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    m = len(keys)
    exact = dtype == rows.dtype
    queries = keys.to(dtype)
    below = _uncertainty(keys, queries)
    shortlist = _Shortlist(m, keys.device)
    bar = None  # [m]: what is not above it is not among the k best
    hopeless = torch.zeros(m, dtype=torch.bool, device=keys.device)
    size = _chunk_rows(keys, at_least=8 * k)
    starts = range(0, len(rows), size)
    for i, start in enumerate(starts):
        chunk = rows[start : start + size].to(dtype)
        similarity = chunk @ queries.T  # [c, m]: maxima over rows are then fast
        if len(chunk) % BLOCK:
            similarity = F.pad(
                similarity, (0, 0, 0, -len(chunk) % BLOCK), value=-torch.inf
            )
        blocks = similarity.view(-1, BLOCK, m)
        if bar is None:
            # The k-th of some maxima is at most the k-th of all, and found sooner.
            few = similarity.view(-1, 4, m).amax(1).T.to(keys.dtype)
            bar = keys.new_full((m,), -2.0)
            if few.shape[1] >= k:
                bar = below(few.topk(k, dim=1).values[:, -1])
                bar = bar.nextafter(bar.new_tensor(-2.0))  # the k-th itself enters
        key, block = (blocks.amax(1) > bar).T.nonzero().unbind(1)
        if i > 0 and not exact and 2 * len(key) > m * len(blocks):
            # Rows too much alike for this precision, which then shortlists nothing.
            return _search_streaming(keys, rows, k, rows.dtype)
        inside = blocks[block, :, key]  # [hits, BLOCK]
        hit, place = (inside > bar[key, None]).nonzero().unbind(1)
        shortlist.add(
            key[hit],
            inside[hit, place].to(keys.dtype),
            block[hit] * BLOCK + place + start,
        )
        # Raise the bar when the rows seen have doubled, or too many wait: in a queue
        # whose rows come ever closer to the keys each one passes.
        doubled = i & (i + 1) == 0
        if (doubled or shortlist.waiting > 8 * k * m) and i + 1 < len(starts):
            best, _ = shortlist.best(k)
            bar = torch.maximum(bar, below(best[:, -1]))
            shortlist.keep(bar)
            if exact:
                continue
            hopeless |= shortlist.count > 5 * k + 64
            bar.masked_fill_(hopeless, torch.inf)
            shortlist.keep(bar)
    if exact:
        return shortlist.best(k)
    best, _ = shortlist.best(k)
    shortlist.keep(torch.maximum(bar, below(best[:, -1])))
    hopeless |= shortlist.count < k
    offsets = shortlist.count.cumsum(0) - shortlist.count
    shortlist.score = neighbor_products(keys, rows, shortlist.index, offsets)
    similarity, index = shortlist.best(k)
    again = hopeless.nonzero()[:, 0]
    if len(again) > 0:
        similarity[again], index[again] = _search_streaming(
            keys[again], rows, k, rows.dtype
        )
    return similarity, index


class _Shortlist:
    """Rows that may be among the best of some key: a list of any length for each."""

    def __init__(self, num_keys: int, device: torch.device) -> None:
        self.num_keys = num_keys
        self.key = torch.empty(0, dtype=torch.long, device=device)
        self.score = torch.empty(0, device=device)
        self.index = self.key
        self.waiting = 0
        self._parts = []

    def add(self, key: Tensor, score: Tensor, index: Tensor) -> None:
        """Take rows in, [s] each, until they are asked for."""
        self._parts.append((key, score, index))
        self.waiting += len(key)

    @property
    def count(self) -> Tensor:
        """How many rows each key has, [m]."""
        return self.key.bincount(minlength=self.num_keys)

    def keep(self, bar: Tensor) -> None:
        """Drop what is below the key's bar [m]."""
        good = self.score >= bar[self.key]
        self.key, self.score = self.key[good], self.score[good]
        self.index = self.index[good]

    def best(self, k: int) -> tuple[Tensor, Tensor]:
        """Score and row of the k best of each key, [m, k]; -inf where it has fewer."""
        if self._parts:
            parts = [(self.key, self.score, self.index), *self._parts]
            key, score, index = (torch.cat(part) for part in zip(*parts, strict=True))
            self.key, order = key.sort(stable=True)
            self.score, self.index = score[order], index[order]
            self._parts, self.waiting = [], 0
        count = self.count
        place = torch.arange(len(self.key), device=self.key.device)
        place -= (count.cumsum(0) - count)[self.key]
        width = max(k, int(count.max()))
        score = self.score.new_full((self.num_keys, width), -torch.inf)
        index = self.index.new_zeros(self.num_keys, width)
        score[self.key, place] = self.score
        index[self.key, place] = self.index
        best = score.topk(k, dim=1)
        return best.values, index.gather(1, best.indices)


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
