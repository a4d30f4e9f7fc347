import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.dist import all_reduce, broadcast, get_world_size
from mmengine.runner import TestLoop, ValLoop, autocast
from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import LOOPS
from mmpretrain.utils import get_ori_model
from torch import Tensor

from snclr_mm.evaluation.features import (
    batch_features,
    check_finite,
    extract_features,
    gt_labels,
)
from snclr_mm.evaluation.weighted_knn import check_knn, vote
from snclr_mm.models.ops import gather_rows, top_k


class _KNNLoop:
    """What validation and test share; mixed in before ValLoop and TestLoop."""

    stage: str

    def __init__(
        self,
        runner,
        dataloader,
        evaluator,
        bank_dataloader: dict,
        k: int = 20,
        temperature: float = 0.07,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.k = k
        self.temperature = temperature
        self.bank_dataloader = runner.build_dataloader(
            bank_dataloader, seed=runner.seed
        )
        bank_size = len(self.bank_dataloader.dataset)
        check_knn(k, temperature, bank_size)
        if bank_size < get_world_size():
            raise ValueError(
                f"kNN: a bank of {bank_size} images ({self.stage}_cfg.bank_dataloader) "
                f"can't be spread over {get_world_size()} ranks."
            )
        classes = getattr(self.bank_dataloader.dataset, "CLASSES", None)
        for metric in self.evaluator.metrics:
            most = max(metric.topk) if isinstance(metric, Accuracy) else 1
            if classes and most > len(classes):
                raise ValueError(
                    f"kNN: {self.stage}_evaluator.topk={metric.topk} of the "
                    f"{len(classes)} classes of {self.stage}_cfg.bank_dataloader."
                )
        if len(self.dataloader.dataset) % get_world_size() and not getattr(
            self.dataloader.sampler, "round_up", True
        ):
            raise ValueError(
                f"kNN: {self.stage}_dataloader.sampler.round_up=False gives the ranks "
                "unequal batches, but they exchange queries: leave it True."
            )

    def run(self) -> dict:
        """Evaluate, and free the bank: it is gigabytes on large data."""
        try:
            return super().run()
        finally:
            self._bank = self._labels = None

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Classify one batch; before the first, extract the bank."""
        if idx == 0:  # here and not in run(): EMAHook has swapped the weights by now
            self._build_bank()
        batch = dict(batch_idx=idx, data_batch=data_batch)
        self.runner.call_hook(f"before_{self.stage}_iter", **batch)
        outputs = self._predict(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(f"after_{self.stage}_iter", **batch, outputs=outputs)

    def _build_bank(self) -> None:
        """Extract this rank's share of the bank; it is never gathered.

        BatchNorm's running statistics may differ between the ranks, as where SyncBN is
        not used. All take rank 0's, which are those of the checkpoint.
        """
        for buffer in get_ori_model(self.runner.model).backbone.buffers():
            broadcast(buffer)
        self.runner.logger.info(
            f"kNN: extracting {len(self.bank_dataloader.dataset)} bank features."
        )
        name = f"{self.stage}_cfg.bank_dataloader.dataset"
        with autocast(enabled=self.fp16):
            features, self._labels = extract_features(
                self.runner.model, self.bank_dataloader, name, across_ranks=True
            )
        self._bank = F.normalize(features, dim=1, out=features)
        most = self._labels.max()
        all_reduce(most, "max")
        self._num_classes = int(most) + 1

    def _predict(self, batch: dict) -> list:
        """Set ``pred_score`` and ``pred_label`` of each DataSample in a batch."""
        with autocast(enabled=self.fp16):
            features, data_samples = batch_features(self.runner.model, batch)
        name = f"{self.stage}_dataloader.dataset"
        gt_labels(data_samples, name)
        queries = F.normalize(features, dim=1)
        check_finite(queries, f"a batch of {name}", across_ranks=True)
        scores = vote(*self._neighbors(queries), self._num_classes, self.temperature)
        scores = scores.cpu()  # metrics read them one by one
        labels = scores.argmax(dim=1, keepdim=True)
        for sample, score, label in zip(data_samples, scores, labels, strict=True):
            sample.set_pred_score(score).set_pred_label(label)
        return data_samples

    def _neighbors(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity and label, [n, k], of the neighbors over all ranks' banks."""
        # Each rank searches its own bank for everyone's queries.
        queries, k = gather_rows(queries), min(self.k, len(self._bank))
        similarity, index = top_k(queries, self._bank, k, dtype=self._bank.dtype)
        labels = self._labels[index]
        if get_world_size() > 1:
            # A bank share below k is filled with neighbors that have no weight.
            missing = self.k - k
            similarity = _send_back(F.pad(similarity, (0, missing), value=-torch.inf))
            labels = _send_back(F.pad(labels, (0, missing)))
            similarity, best = similarity.topk(self.k, dim=1)
            labels = labels.gather(1, best)
        return similarity, labels


def _send_back(found: Tensor) -> Tensor:
    """Send back what was found for all queries, [W n, k]; get one's own, [n, W k]."""
    received = torch.empty_like(found)
    dist.all_to_all_single(received, found.contiguous())
    return received.unflatten(0, (get_world_size(), -1)).transpose(0, 1).flatten(1)


@LOOPS.register_module()
class KNNValLoop(_KNNLoop, ValLoop):
    """Validation by weighted kNN on backbone features, for any SSL algorithm.

    Labels come from a bank of training images, see :func:`weighted_knn`. The bank stays
    spread over the ranks: a batch's queries go to all of them, and each rank gets its
    own queries' candidates back, so no rank holds the bank whole and no N_test x
    N_train matrix exists. Metrics are MMPretrain's own, on ``pred_score``.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): ``val_dataloader``, the queries; single views
            with labels, ``collate_fn=dict(type='default_collate')``.
        evaluator (dict | Evaluator): ``val_evaluator``, e.g.
            ``dict(type='Accuracy', prefix='knn')``.
        bank_dataloader (dict): Config of the bank's dataloader, likewise; its sampler
            needs ``round_up=False``, so that no image counts twice.
        k (int): Number of neighbors. Defaults to 20.
        temperature (float): T of the vote. Defaults to 0.07.
        fp16 (bool): Extract features in half precision. Defaults to False.

    Raises:
        ValueError: If k or T is out of range, an image has no label, or a feature is
            not finite (on all ranks together).
    """

    stage = "val"


@LOOPS.register_module()
class KNNTestLoop(_KNNLoop, TestLoop):
    """The same for ``tools/test.py``: see :class:`KNNValLoop`."""

    stage = "test"
