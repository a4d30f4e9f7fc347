from contextlib import ExitStack

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn

from snclr_mm.engine.hooks.utils import find_modules
from snclr_mm.models import NeighborHead, NeighborQueue
from snclr_mm.models.neighbor_head import Neighbors

from .diagnostic_hook import DiagnosticHook, batch_labels

STATE = "neighbor_labels"


@HOOKS.register_module()
class NeighborPurityHook(DiagnosticHook):
    """Share of the neighbors that have their query's label.

    Logs ``diagnostics/neighbor_purity``, 0 to 1: over all images of all ranks and both
    views, the share of the K neighbors that the head found, and used in its loss, whose
    label equals the query's. For every model with a NeighborHead.

    The hook keeps the label of each queue row, in every iteration, at the price of one
    small gather per optimizer step. The labels follow what NeighborQueueHook enqueues
    or drops, are saved in checkpoints and resumed. Pairs in which a label is not known
    are left out: images without a label, random start rows, and rows from before the
    hook was added. Where no query has a label, the hook warns once and logs nothing.

    Args:
        interval (int): Iterations between two measurements. Defaults to 10.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    def __init__(self, interval: int = 10) -> None:
        super().__init__(interval)
        #: By the head's name.
        self.queue_labels: dict[str, QueueLabels] = {}
        self._found: list[tuple[str, Tensor]] = []
        self._loaded: dict[str, dict] = {}

    def before_train(self, runner) -> None:
        """Find the queues; the labels of rows that are in them come from a resume."""
        heads = find_modules(get_ori_model(runner.model), NeighborHead)
        self.queue_labels = {
            name: QueueLabels(head.queue) for name, head in heads.items()
        }
        for name, state in self._loaded.items():
            if name in self.queue_labels:
                self.queue_labels[name].load_state_dict(state)
        self._loaded = {}
        if not heads:
            self._warn_once(runner, "the model looks no neighbors up.")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Measure against the labels of the queue that was searched, then follow it."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self.queue_labels:
            labels = batch_labels(data_batch)
            for queue_labels in self.queue_labels.values():
                queue_labels.follow(labels)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the labels of the queues' rows."""
        if self.queue_labels:
            checkpoint[STATE] = {
                name: labels.state_dict() for name, labels in self.queue_labels.items()
            }

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember the labels until the queues are known; they belong together."""
        self._loaded = checkpoint.get(STATE, {})

    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
        self._found = []
        for name, head in find_modules(model, NeighborHead).items():

            def keep(neighbors: Neighbors, name: str = name) -> None:
                self._found.append((name, neighbors.index))

            head.search_observers.append(keep)
            stack.callback(head.search_observers.remove, keep)

    def _measure(self, runner, data_batch: dict) -> dict[str, float]:
        query = batch_labels(data_batch)[:, None]
        counts = torch.zeros(3)
        for name, index in self._found:
            neighbor = self.queue_labels[name].of(index)
            known = (query >= 0) & (neighbor >= 0)
            same = known & (query == neighbor)
            counts += torch.stack([same.sum(), known.sum(), (query >= 0).sum()])
        all_reduce(counts)
        same, known, labeled = counts.tolist()
        if self._found and labeled == 0:
            self._warn_once(
                runner,
                "the batch has no labels: nothing is logged. Use a labeled training "
                "dataset.",
            )
        return {"neighbor_purity": same / known} if known else {}


class QueueLabels:
    """The label of each row of a NeighborQueue, -1 where it is not known.

    Call :meth:`follow` after each iteration, when NeighborQueueHook has committed or
    dropped what was staged. Each staged view must hold the batch's images in order.

    Args:
        queue (NeighborQueue): The queue to follow.
    """

    def __init__(self, queue: NeighborQueue) -> None:
        self.queue = queue
        # With sync=False the labels of every rank's queue, as rank 0 alone saves them.
        ranks = 1 if queue.sync else get_world_size()
        self.rows = torch.full((ranks, queue.length), -1)
        self.count = queue.num_written
        self._pending: list[Tensor] = []

    def of(self, index: Tensor) -> Tensor:
        """Labels of this rank's queue rows, int64, on the CPU, of ``index``'s shape."""
        return self.rows[0 if self.queue.sync else get_rank()][index.cpu()]

    def follow(self, labels: Tensor) -> None:
        """Do with a batch's labels [n] what the queue did with its keys."""
        self._pending.append(labels)
        if self.queue.num_staged > 0:
            return  # gradient accumulation: not decided yet
        pending, self._pending = self._pending, []
        enqueued = self.queue.num_written - self.count
        if enqueued:
            self._write(pending, enqueued)

    def state_dict(self) -> dict:
        """What a checkpoint needs."""
        return dict(rows=self.rows, count=self.count)

    def load_state_dict(self, state: dict) -> None:
        """Take saved labels, unless they are not of the rows that the queue holds."""
        if state["count"] != self.count or state["rows"].shape[1] != self.queue.length:
            return
        saved = state["rows"].cpu()
        # As NeighborQueueHook: rank r takes the queue of rank r mod W.
        self.rows = saved[torch.arange(len(self.rows)) % len(saved)]

    def _write(self, pending: list[Tensor], enqueued: int) -> None:
        ranks = torch.stack(all_gather(torch.cat(pending)))  # [W, m]
        batches = ranks.split([len(labels) for labels in pending], dim=1)
        if self.queue.sync:
            batches = [batch.reshape(1, -1) for batch in batches]
        views, rest = divmod(enqueued, sum(batch.shape[1] for batch in batches))
        if rest or views < 0:  # something else wrote to the queue, or emptied it
            self.rows.fill_(-1)
        else:
            # In the order of NeighborQueue.commit: batch, view, rank.
            labels = torch.cat([batch.repeat(1, views) for batch in batches], dim=1)
            row = (self.count + torch.arange(enqueued)) % self.queue.length
            kept = slice(-self.queue.length, None)
            self.rows[:, row[kept]] = labels[:, kept]
        self.count += enqueued
