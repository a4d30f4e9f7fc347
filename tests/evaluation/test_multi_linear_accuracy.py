import pytest
import torch
from helpers.ranks import run_on_ranks
from mmengine.evaluator import Evaluator
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

FACTORS = (0.3, 1, 10)
LABELS = [0, 0, 0, 0, 0, 0, 1, 1, 2]
# By classifier: all the frequent class; each class in part; nothing right.
PREDICTIONS = [
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 1, 1, 1, 1, 0, 2],
    [2, 2, 2, 2, 2, 2, 2, 2, 1],
]
RECALLS = [[6 / 6, 0 / 2, 0 / 1], [3 / 6, 1 / 2, 1 / 1], [0, 0, 0]]


def evaluate(rank=0, world_size=1, **kwargs):
    metric = METRICS.build(dict(type="MultiLinearAccuracy", **kwargs))
    metric.dataset_meta = None
    samples = []
    for i in range(rank, len(LABELS), world_size):
        sample = DataSample().set_gt_label(LABELS[i])
        sample.set_field(torch.tensor([p[i] for p in PREDICTIONS]), "pred_labels")
        sample.set_field(FACTORS, "lr_factors", field_type="metainfo")
        samples.append(sample)
    evaluator = Evaluator([metric])
    for start in range(0, len(samples), 2):
        evaluator.process(samples[start : start + 2])
    return evaluator.evaluate(len(LABELS))


@pytest.mark.parametrize("mean_per_class", [False, True])
def test_against_a_plain_loop(mean_per_class):
    metrics = evaluate(mean_per_class=mean_per_class)
    name = "accuracy/mean_per_class" if mean_per_class else "accuracy/top1"
    expected = []
    for predictions, recalls in zip(PREDICTIONS, RECALLS, strict=True):
        right = sum(p == label for p, label in zip(predictions, LABELS, strict=True))
        share = sum(recalls) / 3 if mean_per_class else right / len(LABELS)
        expected.append(100 * share)
    best = 1 if mean_per_class else 0
    assert metrics == pytest.approx(
        {
            name: expected[best],
            "accuracy/best_lr_factor": FACTORS[best],
            f"{name}_x0.3": expected[0],
            f"{name}_x1": expected[1],
            f"{name}_x10": expected[2],
        }
    )


def test_three_ranks_agree_with_one():
    one = evaluate(prefix="linear")
    assert next(iter(one)) == "linear/top1"
    for metrics in run_on_ranks(3, _on_rank):
        assert metrics == one


def _on_rank(rank):
    return evaluate(rank, 3, prefix="linear")


def test_predictions_of_another_head_are_refused():
    metric = METRICS.build(dict(type="MultiLinearAccuracy"))
    sample = DataSample().set_gt_label(1).set_pred_label(1)
    with pytest.raises(ValueError, match=r"model\.head\.type=MultiLinearHead.*val_ev"):
        metric.process({}, [sample.to_dict()])
