from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS


@METRICS.register_module()
class MultiLinearAccuracy(BaseMetric):
    """Accuracy of each classifier of a MultiLinearHead, and of the best.

    The metrics are, in percent, ``top1`` of the best classifier and ``top1_x{factor}``
    of each, and ``best_lr_factor``. The best is chosen on the images that are
    evaluated, as the field's linear probes choose their learning rate.

    Args:
        mean_per_class (bool): Average the classes' accuracies, so that all count the
            same, and report ``mean_per_class`` in place of ``top1``. Defaults to False.
        collect_device (str): As in BaseMetric. Defaults to ``'cpu'``.
        prefix (str, optional): Of the names. Defaults to None, ``'accuracy'``.

    Raises:
        ValueError: If the predictions are not a MultiLinearHead's.
    """

    default_prefix = "accuracy"

    def __init__(
        self,
        mean_per_class: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.mean_per_class = mean_per_class

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep which classifiers are right, not their scores: it is all that counts."""
        for sample in data_samples:
            if "pred_labels" not in sample:
                raise ValueError(
                    "MultiLinearAccuracy needs model.head.type=MultiLinearHead: use "
                    "Accuracy for a head with one classifier (config keys "
                    "val_evaluator and test_evaluator)."
                )
            label = sample["gt_label"].cpu()
            correct = sample["pred_labels"].cpu() == label
            self.results.append((label, correct, sample["lr_factors"]))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average over the images or classes; see :class:`MultiLinearAccuracy`."""
        label = torch.cat([result[0] for result in results])
        correct = 100 * torch.stack([result[1] for result in results]).double()
        factors = results[0][2]
        if self.mean_per_class:
            name = "mean_per_class"
            correct = torch.stack([correct[label == c].mean(0) for c in label.unique()])
        else:
            name = "top1"
        accuracy = correct.mean(0).tolist()
        best = accuracy.index(max(accuracy))
        return {
            name: accuracy[best],
            "best_lr_factor": factors[best],
            **{
                f"{name}_x{factor:g}": value
                for factor, value in zip(factors, accuracy, strict=True)
            },
        }
