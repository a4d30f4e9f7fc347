import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers.spies import spy_on
from hypothesis import given, settings
from hypothesis import strategies as st

from snclr_mm.models import neighbor_search
from snclr_mm.models.neighbor_search import search_neighbors

FAST = [
    (backend, precision)
    for backend in ("streaming", "blocks")
    for precision in ("float32", "bfloat16", "float16")
]


def unit(*shape, seed=0, center=None, spread=1.0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(values if center is None else center + spread * values, dim=-1)


def check(keys, rows, k, similarity, index):
    """What was found are the k best: compared in double precision."""
    everything = keys.double() @ rows.double().T
    best = everything.topk(k, dim=1).values
    assert similarity.dtype == rows.dtype
    assert index.dtype == torch.int64
    torch.testing.assert_close(similarity.double(), best, rtol=0, atol=1e-6)
    # The rows themselves: only ties within float32's rounding may be exchanged.
    torch.testing.assert_close(everything.gather(1, index), best, rtol=0, atol=1e-6)
    distinct = index.sort(dim=1).values.diff(dim=1)
    assert (distinct > 0).all()


@pytest.mark.parametrize("chunk", [2**8, 2**12, 2**16])
@pytest.mark.parametrize("backend, precision", FAST)
def test_equals_brute_force(backend, precision, chunk, monkeypatch):
    monkeypatch.setattr(neighbor_search, "CPU_CHUNK", chunk)
    for m, length, d, k in [
        (1, 1, 4, 1),
        (3, 31, 4, 31),
        (2, 33, 8, 5),
        (5, 320, 16, 10),
        (7, 3001, 32, 1),
        (16, 5000, 64, 30),
    ]:
        keys, rows = unit(m, d), unit(length, d, seed=1)
        found = search_neighbors(keys, rows, k, backend, precision)
        check(keys, rows, k, *found)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 700),
    spread=st.sampled_from([1.0, 0.1, 1e-3]),
    ties=st.booleans(),
    chunk=st.sampled_from([64, 1024, 2**15]),
    dtype=st.sampled_from(["bfloat16", "float32"]),
    data=st.data(),
)
def test_streaming_is_exact(seed, length, spread, ties, chunk, dtype, data):
    """Also where bfloat16 cannot tell the rows apart."""
    k = data.draw(st.integers(1, length))
    center = unit(12, seed=seed)
    keys = unit(4, 12, seed=seed + 1, center=center, spread=spread)
    rows = unit(length, 12, seed=seed + 2, center=center, spread=spread)
    if ties:
        rows[length // 2 :] = rows[: length - length // 2].clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbor_search, "CPU_CHUNK", chunk)
        check(keys, rows, k, *search_neighbors(keys, rows, k, "streaming", dtype))


def test_shortlists_that_are_too_short_are_searched_again(monkeypatch):
    # One key has hundreds of rows within rounding of its k-th; the others are ordinary.
    center = unit(16)
    alike = unit(600, 16, seed=1, center=center, spread=1e-3)
    rows = torch.cat([unit(1500, 16, seed=2), alike, unit(1500, 16, seed=3)])
    keys = torch.cat([center[None], unit(7, 16, seed=4)])
    monkeypatch.setattr(neighbor_search, "CPU_CHUNK", 2048)
    searched = []
    original = neighbor_search._search_streaming

    def recorded(keys, rows, k, dtype):
        searched.append((len(keys), dtype))
        return original(keys, rows, k, dtype)

    monkeypatch.setattr(neighbor_search, "_search_streaming", recorded)
    check(keys, rows, 5, *search_neighbors(keys, rows, 5, "streaming", "bfloat16"))
    assert searched == [(8, torch.bfloat16), (1, torch.float32)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_that_come_ever_closer_do_not_pile_up(precision, monkeypatch):
    # As in a queue whose features drift: each chunk beats all chunks before it.
    key = unit(32)
    rows = unit(8000, 32, seed=1)
    rows = rows[(rows @ key).argsort()]
    keys = F.normalize(key + 0.01 * unit(16, 32, seed=2), dim=1)
    monkeypatch.setattr(neighbor_search, "CPU_CHUNK", 16 * 250)
    waiting = []
    original = neighbor_search._Shortlist.add

    def recorded(self, *args):
        original(self, *args)
        waiting.append(self.waiting)

    monkeypatch.setattr(neighbor_search._Shortlist, "add", recorded)
    k = 5
    check(keys, rows, k, *search_neighbors(keys, rows, k, "streaming", precision))
    assert max(waiting) <= 8 * k * 16 + 16 * 256  # one chunk more than the limit


def test_no_keys_and_keys_that_are_not_numbers():
    rows = unit(5000, 8)
    for backend in ("auto", "plain", "streaming", "blocks"):
        similarity, index = search_neighbors(rows[:0], rows, 3, backend)
        assert similarity.shape == index.shape == (0, 3)
        keys = unit(4, 8, seed=1)
        expected = search_neighbors(keys[1:], rows, 3, backend)
        keys[0] = torch.nan
        similarity, index = search_neighbors(keys, rows, 3, backend)
        torch.testing.assert_close(similarity[1:], expected[0])
        assert (index >= 0).all() and (index < len(rows)).all()


def test_double_precision_stays():
    keys, rows = unit(3, 8).double(), unit(400, 8, seed=1).double()
    for backend in ("plain", "streaming", "blocks"):
        similarity, _ = search_neighbors(keys, rows, 4, backend, "bfloat16")
        expected = (keys @ rows.T).topk(4, dim=1).values
        torch.testing.assert_close(similarity, expected, rtol=0, atol=1e-15)


def test_auto_chooses_by_size(monkeypatch):
    versions = ("_search_plain", "_search_streaming")
    used = spy_on(monkeypatch, neighbor_search, *versions)
    keys = unit(64, 8)
    search_neighbors(keys, unit(1000, 8), 10)
    search_neighbors(keys, unit(2**17, 8), 10)
    search_neighbors(keys, unit(2**15, 8), 2**14)  # most rows: nothing to shortlist
    monkeypatch.setattr(neighbor_search, "MANY", 64 * 2**15)
    search_neighbors(keys, unit(2**15, 8), 200)  # but a plain search would be too large
    names = ["_search_plain", "_search_streaming", "_search_plain", "_search_streaming"]
    assert used == names


def test_a_search_that_fails_falls_back_with_one_warning(monkeypatch):
    def broken(*args):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(neighbor_search, "_search_streaming", broken)
    keys, rows = unit(64, 8), unit(2**16, 8, seed=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            check(keys, rows, 3, *search_neighbors(keys, rows, 3))
    assert len(caught) == 1
    assert "no kernel image" in str(caught[0].message)
    with pytest.raises(RuntimeError, match="no kernel image"):  # asked for by name
        search_neighbors(keys, rows, 3, "streaming")


def test_plain_estimates_its_memory(monkeypatch):
    monkeypatch.setattr("snclr_mm.hardware.free_bytes", lambda device: 2**20)
    keys, rows = unit(2**11, 2), unit(2**16, 2)
    with pytest.raises(
        MemoryError,
        match=r"2048 keys and 65536 queue rows needs about 0\.5 GiB.*search_backend",
    ):
        search_neighbors(keys, rows, 1, "plain")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(backend="faiss"), r"backend='faiss'.*'streaming'.*queue\.search_backend"),
        (dict(precision="int8"), r"precision='int8'.*queue\.search_precision"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        search_neighbors(unit(2, 4), unit(3, 4), 1, **change)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "auto"])
def test_on_a_gpu_without_waiting_for_it(precision):
    keys, rows = unit(64, 128).cuda(), unit(40000, 128, seed=1).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = search_neighbors(keys, rows, 20, "blocks", precision)
        automatic = search_neighbors(keys, rows, 20)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    check(keys.cpu(), rows.cpu(), 20, *(part.cpu() for part in found))
    check(keys.cpu(), rows.cpu(), 20, *(part.cpu() for part in automatic))
