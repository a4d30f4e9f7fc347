import copy
from collections import deque

import pytest
import torch
import torch.nn.functional as F
from helpers.ranks import run_on_ranks
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dist import all_reduce_params
from mmengine.runner.checkpoint import get_state_dict
from torch.nn.parallel import DistributedDataParallel

from snclr_mm.models import NeighborQueue


def numbered(start, count, dim=3):
    """Rows that tell their number: the direction of (number, 1, 0, ...)."""
    rows = torch.zeros(count, dim)
    rows[:, 0] = torch.arange(start, start + count) + 1
    rows[:, 1] = 1
    return rows


@given(
    length=st.integers(1, 12),
    sizes=st.lists(st.integers(0, 30), max_size=12),
    staged=st.booleans(),
)
def test_is_a_deque(length, sizes, staged):
    queue = NeighborQueue(length, 3)
    reference = deque(maxlen=length)
    position = 0
    for size in sizes:
        rows = numbered(position, size)
        position += size
        if staged:
            queue.stage(rows[: size // 2])
            queue.stage(rows[size // 2 :])
            assert queue.commit()
        else:
            queue.enqueue(rows)
        reference.extend(F.normalize(rows, dim=1))
        assert len(queue) == len(reference)
        assert queue.pointer == position % length
        assert queue.fill == len(reference) / length
        # Oldest first: from the pointer once full, from row 0 before.
        start = queue.pointer if len(queue) == length else 0
        oldest_first = queue.features.roll(-start, dims=0)[: len(queue)]
        expected = torch.stack(list(reference)) if reference else torch.zeros(0, 3)
        torch.testing.assert_close(oldest_first, expected)
    assert queue.features[len(queue) :].abs().sum() == 0


@given(
    filled=st.integers(1, 40),
    m=st.integers(1, 8),
    ties=st.booleans(),
    data=st.data(),
)
def test_search_equals_brute_force(filled, m, ties, data):
    k = data.draw(st.integers(0, filled))
    queue = NeighborQueue(40, 8).double()
    rows = torch.randn(filled, 8).double()
    if ties:
        rows[filled // 2 :] = rows[: filled - filled // 2].clone()
    queue.enqueue(rows)
    keys = torch.randn(m, 8).double() * 100
    similarity, index = queue.search(keys, k)
    assert similarity.shape == index.shape == (m, k)
    assert index.dtype == torch.int64
    for i in range(m):
        everything = [
            F.cosine_similarity(keys[i], queue.features[j], dim=0).item()
            for j in range(filled)
        ]
        best = sorted(everything, reverse=True)[:k]
        assert similarity[i].tolist() == pytest.approx(best, abs=1e-12)
        # Equal similarities may come in any order, but each row only once.
        assert len(set(index[i].tolist())) == k
        found = [everything[j] for j in index[i].tolist()]
        assert found == pytest.approx(best, abs=1e-12)


def test_unfilled_rows_are_never_found():
    queue = NeighborQueue(100, 4)
    queue.enqueue(-torch.ones(2, 4))
    similarity, index = queue.search(torch.ones(1, 4), 2)
    torch.testing.assert_close(similarity, -torch.ones(1, 2))
    assert set(index[0].tolist()) == {0, 1}
    with pytest.raises(ValueError, match=r"k=3 .* 2 filled rows \(of 100\)"):
        queue.search(torch.ones(1, 4), 3)


def test_random_start():
    state = torch.get_rng_state()
    queue = NeighborQueue(50, 16, init="random")
    assert torch.equal(state, torch.get_rng_state())  # other weights do not change
    torch.testing.assert_close(queue.features.norm(dim=1), torch.ones(50))
    assert len(queue) == 50
    assert queue.num_enqueued == 0
    assert queue.search(torch.randn(2, 16), 50)[0].shape == (2, 50)
    queue.enqueue(torch.randn(20, 16))
    assert (len(queue), queue.num_enqueued, queue.pointer) == (50, 20, 20)


def test_unit_rows_in_half_precision_and_autocast():
    queue = NeighborQueue(10, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queue.enqueue(torch.randn(4, 16).bfloat16() * 7)
        similarity, _ = queue.search(queue.features[:4] * 3, 1)
    torch.testing.assert_close(queue.features[:4].norm(dim=1), torch.ones(4))
    torch.testing.assert_close(similarity[:, 0], torch.ones(4))


def test_an_empty_queue_is_true():
    assert NeighborQueue(4, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30, 0.0])
def test_keys_that_cannot_be_normalised_are_refused(bad, dtype):
    # In half precision the values are not finite only once they are cast: a NaN row
    # would be everybody's neighbor, and keys of 1e30 would become rows of zeros.
    queue = NeighborQueue(10, 4).to(dtype)
    queue.enqueue(torch.ones(3, 4))
    keys = torch.ones(2, 4)
    keys[1, 2 if bad else slice(None)] = bad
    with pytest.raises(ValueError, match=r"1 of 2 keys cannot .*optim_wrapper"):
        queue.enqueue(keys)
    queue.stage(keys)
    assert not queue.commit()
    assert len(queue) == 3
    assert queue.num_staged == 0
    queue.stage(torch.ones(2, 4))
    assert not queue.commit(valid=False)
    assert len(queue) == 3
    rows = queue.features.float()
    torch.testing.assert_close(rows.norm(dim=1)[:3], torch.ones(3), atol=1e-3, rtol=0)


def test_keys_that_half_precision_cannot_hold_are_normalised_first():
    queue = NeighborQueue(4, 2).half()
    queue.enqueue(torch.tensor([[3e10, 4e10]]))
    expected = torch.tensor([0.6, 0.8]).half()
    torch.testing.assert_close(queue.features[0], expected)


def test_staged_rows_are_not_found_before_commit():
    queue = NeighborQueue(10, 4)
    queue.stage(torch.ones(2, 4))
    assert (len(queue), queue.num_staged) == (0, 2)
    queue.discard()
    assert queue.num_staged == 0
    queue.stage(torch.ones(3, 4))
    assert queue.commit()
    assert len(queue) == 3


def test_staging_without_anybody_to_commit_raises():
    queue = NeighborQueue(10, 4)
    for _ in range(3):  # gradients are accumulated, the optimizer makes no step
        queue.stage(torch.ones(8, 4), step=7)
    with pytest.raises(RuntimeError, match="custom_hooks=.*NeighborQueueHook"):
        queue.stage(torch.ones(1, 4), step=8)


def test_a_batch_with_more_rows_than_the_queue_is_no_error():
    queue = NeighborQueue(10, 4)
    for step in range(3):
        queue.stage(torch.ones(15, 4), step=step)
        queue.stage(torch.ones(15, 4), step=step)
        assert queue.commit()
    assert len(queue) == 10


def test_staging_for_ever_raises():
    queue = NeighborQueue(10, 4)
    with pytest.raises(RuntimeError, match=r"queue\.commit\(\)"):
        for _ in range(2000):
            queue.stage(torch.ones(1, 4))


def enqueue_share(rank, world_size, sync, via_commit):
    queue = NeighborQueue(16, 3, sync=sync)
    share = 12 // world_size
    for batch in range(2):
        rows = numbered(batch * 12, 12)[rank * share : (rank + 1) * share]
        if via_commit:  # two views
            queue.stage(rows)
            queue.stage(rows * -1)
            assert queue.commit()
        else:
            queue.enqueue(rows)
    return queue.features.clone(), queue.pointer, len(queue)


@pytest.mark.parametrize("via_commit", [False, True])
def test_synchronised_queue_does_not_depend_on_the_number_of_ranks(via_commit):
    expected = enqueue_share(0, 1, True, via_commit)
    for world_size in (2, 3):
        for result in run_on_ranks(
            world_size, enqueue_share, world_size, True, via_commit
        ):
            assert torch.equal(result[0], expected[0])
            assert result[1:] == expected[1:]


def test_queue_per_rank_keeps_its_own():
    first, second = run_on_ranks(2, enqueue_share, 2, False, False)
    assert first[1:] == second[1:] == (12, 12)
    torch.testing.assert_close(first[0][:6], F.normalize(numbered(0, 6), dim=1))
    torch.testing.assert_close(second[0][:6], F.normalize(numbered(6, 6), dim=1))


def commit_with_one_bad_rank(rank, staged):
    queue = NeighborQueue(16, 3)
    if staged:
        queue.stage(torch.ones(2, 3))
    return queue.commit(valid=rank != 1), len(queue)


@pytest.mark.parametrize("staged", [True, False])
def test_one_bad_rank_keeps_the_step_out_on_all(staged):
    results = run_on_ranks(3, commit_with_one_bad_rank, staged)
    assert results == [(False, 0)] * 3


def broadcast_rank(rank):
    """Own rows of a rank's queue after what synchronises buffers."""
    queue = NeighborQueue(8, 3, init="random", sync=False)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), queue)
    before = queue.features.clone()
    wrapped = DistributedDataParallel(model, broadcast_buffers=True)
    wrapped._sync_buffers()  # as each forward pass does
    all_reduce_params(model.buffers(), op="mean")  # as SyncBuffersHook does
    return torch.equal(queue.features, before), queue.features


def test_synchronised_buffers_leave_a_queue_per_rank_alone():
    (same, first), (same_2, second) = run_on_ranks(2, broadcast_rank)
    assert same and same_2
    assert not torch.equal(first, second)


def test_state_dict_round_trip():
    queue = NeighborQueue(10, 4)
    queue.enqueue(torch.randn(13, 4))
    other = NeighborQueue(10, 4)
    state = torch.nn.ModuleDict({"queue": queue}).state_dict()
    assert list(state) == ["queue.features", "queue.count"]
    assert list(get_state_dict(queue)) == ["features", "count"]  # MMEngine's own
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.features, queue.features)
    assert (other.pointer, len(other)) == (queue.pointer, len(queue)) == (3, 10)


def test_state_moves_with_the_module():
    queue = NeighborQueue(10, 4)
    queue.enqueue(torch.ones(3, 4))
    assert queue.double().features.dtype == torch.float64
    assert queue.count.dtype == torch.long
    assert copy.deepcopy(queue).features.data_ptr() != queue.features.data_ptr()
    assert queue.to("meta").features.device.type == "meta"


def test_checkpoint_without_a_queue_warns(caplog):
    queue = NeighborQueue(10, 4)
    queue.enqueue(torch.randn(3, 4))
    with caplog.at_level("WARNING"):
        result = torch.nn.Sequential(queue).load_state_dict({}, strict=False)
    assert not result.missing_keys
    assert len(queue) == 3


@pytest.mark.parametrize("length, dim", [(11, 4), (10, 5)])
def test_checkpoint_of_another_size_raises(length, dim):
    state = NeighborQueue(length, dim).state_dict()
    message = rf"length {length} and width {dim}, .* length 10 and width 4"
    with pytest.raises(ValueError, match=message):
        NeighborQueue(10, 4).load_state_dict(state)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(length=0), r"queue\.length=0"),
        (dict(dim=0), r"queue\.dim=0"),
        (dict(init="zeros"), r"'zeros' is unknown.*random.*queue\.init"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        NeighborQueue(**{"length": 4, "dim": 2, **change})


@pytest.mark.parametrize("method", ["enqueue", "stage"])
def test_bad_width(method):
    with pytest.raises(ValueError, match=r"\[3, 5\].*width 4.*out_channels"):
        getattr(NeighborQueue(10, 4), method)(torch.ones(3, 5))


def test_negative_k():
    with pytest.raises(ValueError, match="k=-1"):
        NeighborQueue(10, 4).search(torch.ones(1, 4), -1)


def test_a_queue_of_less_than_four_steps_warns_once(monkeypatch):
    messages = []
    name = "snclr_mm.models.neighbor_queue.print_log"
    monkeypatch.setattr(name, lambda message, **_: messages.append(message))
    for length, warnings in ((16, 0), (15, 1)):
        queue = NeighborQueue(length, 2)
        for _ in range(3):
            queue.stage(torch.randn(4, 2))
            queue.commit()
        assert len(messages) == warnings
    assert "4 of the queue's 15 rows" in messages[0]
    assert "model.head.queue.length, 16 or more" in messages[0]


def test_what_is_staged_is_judged_on_the_queue_s_device():
    """Also where nothing is: the answer joins others on the device."""
    queue = NeighborQueue(length=8, dim=4).to("meta")
    assert queue.staged_is_finite().is_meta
    queue.stage(torch.empty(2, 4, device="meta"))
    assert queue.staged_is_finite().is_meta
