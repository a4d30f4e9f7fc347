import pytest
import torch
import torch.nn.functional as F
from helpers.diagnostics import find, scalar
from mmpretrain.structures import DataSample
from torch import nn

from snclr_mm.engine import OnlineLinearProbeHook


def observed(step):
    """Features [n, C] of the first view, and labels [n]; of the labeled images."""
    features, labels = step["backbone"][0], torch.tensor(step["labels"])
    return features.mean(dim=(2, 3))[labels >= 0], labels[labels >= 0]


def plain_loop(batches, state=None):
    """A training loop of its own: final weights, and hits of each batch before it."""
    probe = nn.Linear(8, 10)
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1, momentum=0.9)
    if state is None:
        nn.init.zeros_(probe.weight)
        nn.init.zeros_(probe.bias)
    else:
        probe.load_state_dict(state["probe"])
        optimizer.load_state_dict(state["optimizer"])
    hits = []
    for features, labels in batches:
        logits = probe(features)
        hits.append((logits.argmax(dim=1) == labels).sum().item())
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    return dict(probe.state_dict()), hits


def running(hits, batches, window=3):
    """Accuracy over the last batches, in percent."""
    totals = [len(labels) for _, labels in batches]
    parts = [slice(max(0, i + 1 - window), i + 1) for i in range(len(hits))]
    return [100 * sum(hits[part]) / sum(totals[part]) for part in parts]


def assert_same_probe(actual, expected):
    torch.testing.assert_close(dict(actual), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scenario", ["plain", "accumulates", "partly labeled"])
def test_equals_a_training_loop_of_its_own(watched, scenario):
    runner = watched(scenario)
    batches = [observed(step) for step in find(runner, "Recorder").steps]
    assert len(batches[1][1]) == (14 if scenario == "partly labeled" else 16)
    weights, hits = plain_loop(batches)
    assert_same_probe(find(runner, "OnlineLinearProbeHook").probe.state_dict(), weights)
    assert weights["weight"].abs().sum() > 0.1
    logged = scalar(runner, "online_linear_top1")
    assert logged == pytest.approx(running(hits, batches))
    assert len(set(logged)) > 2


def test_two_ranks_learn_from_the_global_batch(watched_ranks):
    results, _ = watched_ranks(2, "shared")
    shares = zip(*([observed(s) for s in r["steps"]] for r in results), strict=True)
    # In each second batch rank 0 has three labeled images, rank 1 none.
    batches = [
        [torch.cat(parts) for parts in zip(*share, strict=True)] for share in shares
    ]
    assert [len(labels) for _, labels in batches] == [12, 3] * 4
    weights, hits = plain_loop(batches)
    for result in results:
        assert_same_probe(result["probe"], weights)
        torch.testing.assert_close(result["probe"], results[0]["probe"], rtol=0, atol=0)
        logged = result["scalars"]["online_linear_top1"]
        assert logged == pytest.approx(running(hits, batches))


def test_ranks_average_their_gradients(watched_ranks):
    # The same images, of which the same have labels.
    (one,), _ = watched_ranks(1, "shared")
    (two, _), _ = watched_ranks(2, "shared")
    torch.testing.assert_close(two["probe"], one["probe"], rtol=1e-3, atol=1e-4)


def test_resume(watched, resumed):
    whole, second = watched("plain"), resumed(resume=True)
    path = f"{whole.work_dir}/epoch_1.pth"
    state = torch.load(path, weights_only=True)["online_linear_probe"]
    batches = [observed(step) for step in find(second, "Recorder").steps]
    assert len(batches) == 4
    weights, hits = plain_loop(batches, state)
    assert_same_probe(find(second, "OnlineLinearProbeHook").probe.state_dict(), weights)
    # The running accuracy goes on over the interruption.
    first = [observed(step) for step in find(whole, "Recorder").steps[:4]]
    expected = running(plain_loop(first)[1] + hits, first + batches)
    assert scalar(second, "online_linear_top1") == pytest.approx(expected)


def test_a_resumed_probe_is_saved_again_before_the_first_labels():
    saved, resumed = OnlineLinearProbeHook(), OnlineLinearProbeHook()
    measure(saved, Setting(7), [0, 6])
    checkpoint, again, runner = {}, {}, Setting(7)
    saved.before_save_checkpoint(None, checkpoint)
    runner._resume = True
    resumed.after_load_checkpoint(runner, checkpoint)
    resumed.before_save_checkpoint(None, again)
    assert again == checkpoint


def test_weights_alone_start_a_new_probe(resumed):
    runner = resumed()
    batches = [observed(step) for step in find(runner, "Recorder").steps]
    weights, _ = plain_loop(batches)
    assert_same_probe(find(runner, "OnlineLinearProbeHook").probe.state_dict(), weights)


class Setting:
    """A run on a dataset of seven classes, or of nobody knows how many."""

    def __init__(self, classes):
        metainfo = {} if classes is None else {"classes": ["name"] * classes}
        dataset = type("", (), {"metainfo": metainfo})
        self.train_dataloader = type("", (), {"dataset": dataset})


def measure(hook, runner, labels):
    features = torch.randn(len(labels), 8)
    samples = [DataSample().set_gt_label(label) for label in labels]
    hook._view = type("", (), {"features": {"backbone": features}})
    return hook._measure(runner, {"data_samples": samples})


def test_number_of_classes():
    hook = OnlineLinearProbeHook()
    measure(hook, Setting(7), [0, 6])
    assert hook.probe.out_features == 7
    with pytest.raises(ValueError, match=r"label 7, .*num_classes=7 .*custom_hooks"):
        measure(hook, Setting(7), [0, 7])
    hook = OnlineLinearProbeHook(num_classes=9)
    measure(hook, Setting(7), [0, 8])
    with pytest.raises(ValueError, match="does not say how many classes.*num_classes"):
        measure(OnlineLinearProbeHook(), Setting(None), [0, 1])


def test_checkpoint_of_another_size():
    saved = OnlineLinearProbeHook()
    measure(saved, Setting(7), [0, 6])
    checkpoint = {}
    saved.before_save_checkpoint(None, checkpoint)
    hook, runner = OnlineLinearProbeHook(), Setting(9)
    runner._resume = True
    hook.after_load_checkpoint(runner, checkpoint)
    with pytest.raises(ValueError, match=r"is \[7, 8\] .*is \[9, 8\].*num_classes"):
        measure(hook, runner, [0, 1])


def test_bad_settings():
    for name in ("num_classes", "window"):
        with pytest.raises(ValueError, match=rf"{name}=0 .*custom_hooks"):
            OnlineLinearProbeHook(**{name: 0})
