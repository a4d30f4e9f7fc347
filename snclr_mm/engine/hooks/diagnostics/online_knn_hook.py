from contextlib import ExitStack

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmengine.logging import HistoryBuffer
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from snclr_mm.engine.hooks.utils import check_at_least
from snclr_mm.evaluation.weighted_knn import vote
from snclr_mm.models.ops import gather_rows, top_k

from .diagnostic_hook import DiagnosticHook, FirstViewFeatures, batch_labels


@HOOKS.register_module()
class OnlineKNNHook(DiagnosticHook):
    """Classifies each batch by the latest batches: weighted kNN on backbone features.

    The features of the measured batches' first views are classified by those in a queue
    of the hook's own, shared by all ranks, and enter it afterwards. Logs the running
    accuracy in percent, ``diagnostics/online_knn_top1``, as soon as the queue holds k
    rows. The queue is not in checkpoints, it fills up again.

    Images without a label (or with several) are left out; without any, the hook warns
    once and logs nothing.

    Args:
        length (int): Rows of the queue; keep it below the number of training images, or
            images find themselves of an epoch before. Defaults to 4096.
        k (int): Neighbors that vote. Defaults to 20.
        temperature (float): T of the vote, as in :func:`weighted_knn`. Defaults to
            0.07.
        window (int): Measured batches that the running accuracy spans. Defaults to 50.
        interval (int): Iterations between two measured batches. Defaults to 1.

    Raises:
        ValueError: If a number is below 1, k exceeds the queue, or T is not positive.
    """

    def __init__(
        self,
        length: int = 4096,
        k: int = 20,
        temperature: float = 0.07,
        window: int = 50,
        interval: int = 1,
    ) -> None:
        super().__init__(interval)
        for name, value in (("length", length), ("k", k), ("window", window)):
            check_at_least(self, name, value)
        if k > length:
            raise ValueError(
                f"OnlineKNNHook.k={k} must be at most OnlineKNNHook.length={length} "
                "(config key custom_hooks)."
            )
        if not temperature > 0:
            raise ValueError(
                f"OnlineKNNHook.temperature={temperature} must be above 0 (config key "
                "custom_hooks)."
            )
        self.length = length
        self.k = k
        self.temperature = temperature
        self._accuracy = HistoryBuffer(max_length=window)
        self._bank = self._bank_labels = None

    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
        self._view = FirstViewFeatures(model, stack)

    @torch.no_grad()
    def _measure(self, runner, data_batch: dict) -> dict[str, float]:
        features = F.normalize(self._view.features["backbone"], dim=1)
        labels = batch_labels(data_batch).to(features.device)
        labels = labels.masked_fill(~features.isfinite().all(dim=1), -1)
        if self._bank is None:
            self._bank, self._bank_labels = features[:0], labels[:0]
        scalars = {}
        if len(self._bank) >= self.k:
            scalars = self._classify(features[labels >= 0], labels[labels >= 0])
        self._enqueue(runner, features, labels)
        return scalars

    def _classify(self, queries: Tensor, labels: Tensor) -> dict[str, float]:
        similarity, index = top_k(queries, self._bank, self.k)
        scores = vote(
            similarity,
            self._bank_labels[index],
            int(self._bank_labels.max()) + 1,
            self.temperature,
        )
        correct = (scores.argmax(dim=1) == labels).sum()
        counts = torch.stack([correct, correct.new_tensor(len(labels))])
        all_reduce(counts)
        correct, total = counts.tolist()
        if total == 0:
            return {}
        self._accuracy.update(correct, total)
        return {"online_knn_top1": 100 * self._accuracy.mean()}

    def _enqueue(self, runner, features: Tensor, labels: Tensor) -> None:
        features = gather_rows(features)
        labels = gather_rows(labels[:, None])[:, 0]
        usable = labels >= 0
        if not usable.any():
            self._warn_once(
                runner,
                "the batch has no labels (or no finite features): nothing is logged. "
                "Use a labeled training dataset.",
            )
        self._bank = torch.cat([features[usable], self._bank])[: self.length]
        labels = torch.cat([labels[usable], self._bank_labels])
        self._bank_labels = labels[: self.length]
