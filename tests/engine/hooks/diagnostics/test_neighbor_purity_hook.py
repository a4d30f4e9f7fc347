import pytest
import torch
from helpers.diagnostics import find, scalar, train
from helpers.tiny import tiny_config
from mmpretrain.utils import get_ori_model

from snclr_mm.engine.hooks.diagnostics.neighbor_purity_hook import QueueLabels
from snclr_mm.models import NeighborQueue


def brute_force(steps, keys, key_labels):
    """Pairs of the same label and pairs of known labels, of each step.

    A found row is recognised by what it holds, so where it lies, and when it was
    written, plays no part.
    """
    keys, key_labels = torch.stack(keys), torch.tensor(key_labels)
    counts = []
    for step in steps:
        same = known = 0
        query = step["labels"] * 2  # both views
        for label, rows in zip(query, torch.cat(step["found"]), strict=True):
            for row in rows:
                matches = key_labels[(keys == row).all(dim=1)]
                neighbor = matches[0].item() if len(matches) else -1
                known += label >= 0 and neighbor >= 0
                same += label >= 0 and neighbor == label
        counts.append((same, known))
    return counts


def purity(counts):
    return [same / known for same, known in counts if known]


def check(runner, earlier_keys=(), earlier_labels=(), logged_before=0):
    recorder = find(runner, "Recorder")
    counts = brute_force(
        recorder.steps,
        [*earlier_keys, *recorder.keys],
        [*earlier_labels, *recorder.key_labels],
    )
    logged = scalar(runner, "neighbor_purity")[logged_before:]
    assert logged == pytest.approx(purity(counts))
    assert 0 < sum(same for same, _ in counts) < sum(known for _, known in counts)
    return counts


@pytest.mark.parametrize(
    "scenario",
    ["plain", "accumulates", "random start", "skipped steps", "MoCoV3",
     "partly labeled"],
)  # fmt: skip
def test_equals_brute_force(watched, scenario):
    runner = watched(scenario)
    counts = check(runner)
    pairs = 2 * 16 * 4  # views, images, K
    if scenario == "partly labeled":
        # Neither the queries nor the neighbors without a label count.
        assert 0 < counts[-1][1] < 2 * 14 * 4
    else:
        assert counts[-1][1] == pairs
    queue = get_ori_model(runner.model).head.queue
    assert queue.count > queue.length  # old rows were written over
    # Of the 12 iterations with skipped steps 8 are left.
    assert queue.count == 32 * (12 if scenario == "accumulates" else 8)


@pytest.mark.parametrize(
    "head, k",
    [
        (dict(type="NearestNeighborHead"), 1),
        (dict(type="MeanShiftHead", num_neighbors=3), 3),
        (dict(type="RelationalHead", num_neighbors=2), 2),
        (dict(type="NeighborKeys", head=dict(type="CosineSimilarityLoss")), 1),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_heads_of_other_methods(digits_root, tmp_path, head, k):
    tiny = tiny_config(digits_root, tmp_path).model.head
    parts = ("queue",) if head["type"] == "NeighborKeys" else ("predictor", "queue")
    kept = {name: tiny[name].to_dict() for name in parts}
    runner = train(
        digits_root,
        tmp_path,
        [dict(type=f"Neighbor{kind}Hook", interval=1) for kind in ("Purity", "Age")],
        model__head=dict(_delete_=True, **head, **kept),
    )
    assert check(runner)[-1][1] == 2 * 16 * k
    assert len(scalar(runner, "neighbor_age")) == 7  # but the first, of no neighbors
    similarity = runner.message_hub.get_scalar("train/neighbor_similarity").current()
    assert -1 <= similarity <= 1
    (log,) = tmp_path.glob("*/*.log")
    warm_up = (
        "plain InfoNCE"
        if get_ori_model(runner.model).head.starts_as_info_nce
        else "that of no"
    )
    assert f"warm-up, the loss is {warm_up}" in log.read_text()


@pytest.mark.parametrize("scenario", ["shared", "own"])
def test_two_ranks_equal_brute_force(watched_ranks, scenario):
    results, _ = watched_ranks(2, scenario)
    counts = []
    for result in results:
        # Which rank's keys a rank can find.
        sources = results if scenario == "shared" else [result]
        keys = [key for source in sources for key in source["keys"]]
        key_labels = [label for source in sources for label in source["key_labels"]]
        counts.append(brute_force(result["steps"], keys, key_labels))
    counts = [(a + c, b + d) for (a, b), (c, d) in zip(*counts, strict=True)]
    assert counts[-1][1] > 0
    for result in results:
        assert result["scalars"]["neighbor_purity"] == pytest.approx(purity(counts))
        # All ranks know the labels of all queues.
        assert torch.equal(result["queue_labels"], results[0]["queue_labels"])
        assert result["queue_labels"].shape == (1 + (scenario == "own"), 50)


def test_two_ranks_equal_one(watched_ranks):
    (one,), _ = watched_ranks(1, "shared")
    two, _ = watched_ranks(2, "shared")
    for result in two:
        # Not exactly: neighbors that are almost equally near may change places.
        assert result["scalars"]["neighbor_purity"] == pytest.approx(
            one["scalars"]["neighbor_purity"], abs=0.05
        )


def test_resume(watched, resumed):
    first = find(watched("plain"), "Recorder")
    earlier = first.keys[: 4 * 32], first.key_labels[: 4 * 32]
    counts = check(resumed(resume=True), *earlier, logged_before=3)
    assert [known for _, known in counts] == [2 * 16 * 4] * 4


def test_the_labels_are_loaded_with_the_queue(watched, resumed):
    first = find(watched("plain"), "Recorder")
    earlier = first.keys[: 4 * 32], first.key_labels[: 4 * 32]
    counts = check(resumed(), *earlier)
    assert [known for _, known in counts] == [2 * 16 * 4] * 8


def test_a_queue_per_rank_resumes(watched_ranks):
    saved, work_dir = watched_ranks(2, "own")
    path = f"{work_dir}/epoch_1.pth"
    continued, _ = watched_ranks(2, "own", path)
    counts = []
    for old, new in zip(saved, continued, strict=True):
        assert len(new["steps"]) == 8
        # Epoch 1 enqueued its first 3 of 4 iterations, and at its end the last.
        end = 4 * 12
        counts.append(
            brute_force(
                new["steps"],
                new["keys"] + old["keys"][:end],
                new["key_labels"] + old["key_labels"][:end],
            )
        )
    counts = [(a + c, b + d) for (a, b), (c, d) in zip(*counts, strict=True)]
    assert all(known > 0 for _, known in counts)
    before = len(saved[0]["scalars"]["neighbor_purity"]) - 8
    for result in continued:
        logged = result["scalars"]["neighbor_purity"]
        assert logged[before:] == pytest.approx(purity(counts))


def step(queue, labels, *batches, views=2, commit=True):
    """Stage the batches as a head does, decide, and let the labels follow."""
    queue.managed = True
    for batch in batches:
        for _ in range(views):
            queue.stage(torch.randn(len(batch), 2))
        if batch is batches[-1]:
            if commit:
                queue.commit()
            else:
                queue.discard()
        labels.follow(torch.tensor(batch))


def test_labels_follow_the_queue():
    queue = NeighborQueue(length=10, dim=2)
    labels = QueueLabels(queue)
    assert labels.rows.tolist() == [[-1] * 10]
    step(queue, labels, [1, 2, 3])
    assert labels.rows.tolist() == [[1, 2, 3, 1, 2, 3, -1, -1, -1, -1]]
    step(queue, labels, [4, 5], commit=False)
    step(queue, labels, [6], [7, 8])  # batches of different sizes
    assert labels.rows.tolist() == [[7, 8, 3, 1, 2, 3, 6, 6, 7, 8]]
    step(queue, labels, [0, 9], views=1)
    assert labels.rows.tolist() == [[7, 8, 0, 9, 2, 3, 6, 6, 7, 8]]
    step(queue, labels, range(6))  # more than there are rows
    assert labels.rows.tolist() == [[0, 1, 2, 3, 4, 5, 2, 3, 4, 5]]
    index = torch.tensor([[0, 9], [5, 5]])
    assert labels.of(index).tolist() == [[0, 5], [5, 5]]


def test_without_neighbors_nothing_is_staged():
    queue = NeighborQueue(length=10, dim=2)
    labels = QueueLabels(queue)
    step(queue, labels, [1, 2], views=0)
    step(queue, labels, [3, 4])
    assert labels.rows[0, :4].tolist() == [3, 4, 3, 4]


def test_a_queue_that_something_else_writes_to():
    queue = NeighborQueue(length=10, dim=2)
    labels = QueueLabels(queue)
    step(queue, labels, [1, 2])
    queue.enqueue(torch.randn(3, 2))
    step(queue, labels, [3, 4])  # 7 rows of a batch of 2
    assert labels.rows.tolist() == [[-1] * 10]
    step(queue, labels, [5, 6])
    assert labels.rows.tolist() == [[-1, 5, 6, 5, 6, -1, -1, -1, -1, -1]]


def test_labels_of_another_queue_are_not_loaded():
    queue = NeighborQueue(length=10, dim=2)
    queue.enqueue(torch.randn(4, 2))
    state = dict(rows=torch.arange(10)[None], count=4)
    for wrong in (dict(count=5), dict(rows=torch.arange(9)[None])):
        labels = QueueLabels(queue)
        labels.load_state_dict({**state, **wrong})
        assert labels.rows.tolist() == [[-1] * 10]
    labels.load_state_dict(state)
    assert labels.rows.tolist() == [list(range(10))]
    assert labels.state_dict() == {"rows": labels.rows, "count": 4}


def test_following_the_queue_does_not_wait_for_the_device():
    queue = NeighborQueue(8, 2)
    labels = QueueLabels(queue)
    queue.enqueue(torch.randn(3, 2))
    queue.count = queue.count.to("meta")  # to read it raises
    labels.follow(torch.tensor([4, 5, 6]))
    assert labels.rows[0].tolist() == [4, 5, 6] + 5 * [-1]
