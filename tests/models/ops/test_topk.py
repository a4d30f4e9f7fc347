import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snclr_mm.models.ops import top_k, topk

HALF = (torch.float16, torch.bfloat16)


def unit(*shape, seed=0, center=None, spread=1.0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(values if center is None else center + spread * values, dim=-1)


def check(queries, rows, k, products, index):
    """What was found are the k best: compared in double precision."""
    everything = queries.double() @ rows.double().T
    best = everything.topk(k, dim=1).values
    assert products.dtype == rows.dtype
    assert index.dtype == torch.int64
    torch.testing.assert_close(products.double(), best, rtol=0, atol=1e-6)
    # The rows themselves: only ties within float32's rounding may be exchanged.
    torch.testing.assert_close(everything.gather(1, index), best, rtol=0, atol=1e-6)
    distinct = index.sort(dim=1).values.diff(dim=1)
    assert (distinct > 0).all()


@pytest.mark.parametrize("chunk", [2**8, 2**12, 2**16])
@pytest.mark.parametrize("look", [None, *HALF])
def test_equals_brute_force(look, chunk, monkeypatch):
    # Several chunks, and numbers of rows that are no multiple of a block.
    monkeypatch.setattr(topk, "CPU_CHUNK", chunk)
    for m, length, d, k in [
        (1, 1, 4, 1),
        (3, 31, 4, 31),
        (2, 33, 8, 5),
        (5, 320, 16, 10),
        (7, 3001, 32, 1),
        (16, 5000, 64, 30),
    ]:
        queries, rows = unit(m, d), unit(length, d, seed=1)
        check(queries, rows, k, *top_k(queries, rows, k, look))


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 700),
    spread=st.sampled_from([1.0, 0.1, 1e-3]),
    ties=st.booleans(),
    chunk=st.sampled_from([64, 1024, 2**15]),
    data=st.data(),
)
def test_is_exact(seed, length, spread, ties, chunk, data):
    """Also where half precision could not tell the rows apart."""
    k = data.draw(st.integers(1, length))
    center = unit(12, seed=seed)
    queries = unit(4, 12, seed=seed + 1, center=center, spread=spread)
    rows = unit(length, 12, seed=seed + 2, center=center, spread=spread)
    if ties:
        rows[length // 2 :] = rows[: length - length // 2].clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "CPU_CHUNK", chunk)
        check(queries, rows, k, *top_k(queries, rows, k))


@pytest.mark.parametrize("look", HALF)
def test_half_precision_misses_by_rounding_at_most(look):
    # 600 rows within rounding of each other, more than the shortlist can hold.
    center = unit(16)
    alike = unit(600, 16, seed=1, center=center, spread=1e-3)
    rows = torch.cat([unit(1500, 16, seed=2), alike, unit(1500, 16, seed=3)])
    queries = torch.cat([center[None], unit(7, 16, seed=4)])
    products, index = top_k(queries, rows, 5, look)
    everything = queries @ rows.T
    torch.testing.assert_close(products, everything.gather(1, index))
    best = everything.topk(5, dim=1).values
    worst = 4 * torch.finfo(look).eps
    torch.testing.assert_close(products, best, rtol=0, atol=worst)
    # Queries that have few rows as near find exactly the best.
    torch.testing.assert_close(products[1:], best[1:])


def test_no_queries_and_queries_that_are_not_numbers():
    rows = unit(5000, 8)
    products, index = top_k(rows[:0], rows, 3)
    assert products.shape == index.shape == (0, 3)
    queries = unit(4, 8, seed=1)
    expected = top_k(queries[1:], rows, 3)
    queries[0] = torch.nan
    products, index = top_k(queries, rows, 3)
    torch.testing.assert_close(products[1:], expected[0])
    assert (index >= 0).all() and (index < len(rows)).all()


@pytest.mark.parametrize("look", HALF)
def test_shortlists_are_scored_a_part_at_a_time(look, monkeypatch):
    monkeypatch.setattr(topk, "GPU_CHUNK", 42 * 16 * 3)  # 2k + 32 rows of three queries
    queries, rows = unit(8, 16), unit(3000, 16, seed=1)
    check(queries, rows, 5, *top_k(queries, rows, 5, look))


def test_double_precision_stays():
    queries, rows = unit(3, 8).double(), unit(400, 8, seed=1).double()
    expected = (queries @ rows.T).topk(4, dim=1).values
    for look in (None, torch.bfloat16):
        products, _ = top_k(queries, rows, 4, look)
        torch.testing.assert_close(products, expected, rtol=0, atol=1e-15)


def test_holds_a_chunk_of_products_at_most(monkeypatch):
    monkeypatch.setattr(topk, "CPU_CHUNK", 2**12)
    sizes = []
    original = topk._top_k_by_blocks

    def recorded(products, k):
        sizes.append(products.numel())
        return original(products, k)

    monkeypatch.setattr(topk, "_top_k_by_blocks", recorded)
    top_k(unit(8, 4), unit(5000, 4, seed=1), 3)
    assert max(sizes) <= 2**12 < sum(sizes) == 8 * 5000


def test_nothing_waits_for_the_device():
    # On meta, a value that the host needs raises.
    queries, rows = (torch.empty(n, 16, device="meta") for n in (64, 50001))
    products, index = top_k(queries, rows, 30)
    assert products.shape == index.shape == (64, 30)


@pytest.mark.gpu
@pytest.mark.parametrize("look", [None, torch.float32, *HALF])
def test_on_a_gpu_without_waiting_for_it(look):
    queries, rows = unit(64, 128).cuda(), unit(40000, 128, seed=1).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = top_k(queries, rows, 20, look)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    check(queries.cpu(), rows.cpu(), 20, *(part.cpu() for part in found))
