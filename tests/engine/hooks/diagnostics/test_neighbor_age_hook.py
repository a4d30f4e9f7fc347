import pytest
import torch
from helpers.diagnostics import find, scalar
from mmpretrain.utils import get_ori_model


def brute_force(steps, keys, length):
    """Ages of the found rows, by looking them up in the list of all keys."""
    expected = []
    for step in steps:
        if step["enqueued"] == 0 or step["found"][0].shape[1] == 0:
            continue  # warm-up, or nothing but the random start
        enqueued = torch.stack(keys[: step["enqueued"]])
        ages = []
        for row in torch.cat(step["found"]).flatten(0, 1):
            written = (enqueued == row).all(dim=1).nonzero()
            if len(written):  # not a row of the random start
                ages.append(len(enqueued) - 1 - written[-1].item())
        mean = sum(ages) / len(ages)
        expected.append((mean, mean / (min(length, len(enqueued)) - 1)))
    return zip(*expected, strict=True)


@pytest.mark.parametrize(
    "scenario", ["plain", "accumulates", "random start", "skipped steps", "MoCoV3"]
)
def test_equals_brute_force(watched, scenario):
    runner = watched(scenario)
    recorder = find(runner, "Recorder")
    length = get_ori_model(runner.model).head.queue.length
    age, relative = brute_force(recorder.steps, recorder.keys, length)
    assert len(age) >= 7
    assert scalar(runner, "neighbor_age") == pytest.approx(age)
    assert scalar(runner, "neighbor_relative_age") == pytest.approx(relative)
    assert 0 < min(relative) < max(relative) < 1


def test_mean_over_ranks(watched_ranks):
    results, _ = watched_ranks(2, "own")
    ages, relative = zip(
        *(brute_force(r["steps"], r["keys"], length=50) for r in results), strict=True
    )
    for result in results:
        scalars = result["scalars"]
        mean = [sum(pair) / 2 for pair in zip(*ages, strict=True)]
        assert scalars["neighbor_age"] == pytest.approx(mean)
        mean = [sum(pair) / 2 for pair in zip(*relative, strict=True)]
        assert scalars["neighbor_relative_age"] == pytest.approx(mean)


def test_ranks_agree_on_a_shared_queue(watched_ranks):
    first, second = (r["scalars"] for r in watched_ranks(2, "shared")[0])
    assert first["neighbor_age"] == second["neighbor_age"]
    (one,), _ = watched_ranks(1, "shared")
    # Within a view's 12 keys their order depends on the number of ranks.
    ages = one["scalars"]["neighbor_age"]
    assert first["neighbor_age"] == pytest.approx(ages, abs=11)
