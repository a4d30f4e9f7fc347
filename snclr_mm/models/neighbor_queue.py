import logging

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from .ops import gather_rows, top_k

INITS = ("empty", "random")
STATE = ("features", "count")
# Calls of `stage` that may wait for a commit where steps cannot be counted: gradients
# are accumulated over fewer.
MOST_STAGED = 1000
MOST_COUNTED = 10**15  # a million epochs of a billion images


@MODELS.register_module()
class NeighborQueue(BaseModule):
    """The candidate set C: a first-in-first-out queue of past momentum features.

    State is two tensors: ``features`` [length, dim], unit rows, and ``count``, how many
    rows were ever enqueued, from which pointer and fill follow. They are saved, resumed
    and moved with the model, but they are not buffers: whatever synchronises or
    averages buffers (DistributedDataParallel's ``broadcast_buffers``, MMEngine's
    SyncBuffersHook) would destroy the queues of single ranks.

    A head stages its keys during the forward pass and :class:`NeighborQueueHook`
    commits them after the optimizer step, so that a batch never finds itself. Code
    that has no MMEngine Runner calls :meth:`commit` (or :meth:`enqueue`) itself.

    Args:
        length (int): Q, the number of rows.
        dim (int): d, the width of a row.
        init (str): ``'empty'``: rows can be found once they are filled;
            ``'random'``: the queue starts full of random unit rows, as in the authors'
            code. Defaults to ``'empty'``.
        sync (bool): True: keys of all ranks enter the queue of each, in the same order,
            so it is identical everywhere. False: each rank keeps a queue of its own
            images, as released. Defaults to True.

    Raises:
        ValueError: If ``length`` or ``dim`` is below 1, or ``init`` is unknown.
    """

    def __init__(
        self,
        length: int,
        dim: int,
        init: str = "empty",
        sync: bool = True,
    ) -> None:
        super().__init__()
        if length < 1 or dim < 1:
            raise ValueError(
                f"queue.length={length} and queue.dim={dim} must be at least 1."
            )
        if init not in INITS:
            raise ValueError(
                f"init={init!r} is unknown: use one of {INITS} (config key queue.init)."
            )
        self.length = length
        self.dim = dim
        self.init = init
        self.sync = sync
        self.features = torch.zeros(length, dim)
        self.count = torch.zeros((), dtype=torch.long)
        if init == "random":
            # An own generator: the model's other weights do not depend on the queue.
            generator = torch.Generator().manual_seed(0 if sync else get_rank())
            rows = torch.randn(length, dim, generator=generator)
            self.features = F.normalize(rows, dim=1).to(self.features)
        # Mirrors `count`, so that a search need not wait for the device.
        self._count = 0
        self.discard()
        #: False during warm-up: heads then train without neighbors; the hook sets it.
        self.search_enabled = True
        self.register_state_dict_post_hook(_add_state)

    def __len__(self) -> int:
        """Number of rows that :meth:`search` can find."""
        return self.length if self.init == "random" else self.num_enqueued

    def __bool__(self) -> bool:
        return True  # an empty queue is still a queue

    @property
    def num_written(self) -> int:
        """Number of rows that were ever enqueued: ``count``, without waiting for it."""
        return self._count

    @property
    def num_enqueued(self) -> int:
        """Number of rows that hold real features (random start rows do not count)."""
        return min(self._count, self.length)

    @property
    def pointer(self) -> int:
        """The row that the next key is written to."""
        return self._count % self.length

    @property
    def fill(self) -> float:
        """Share of the rows that hold real features, 0 to 1."""
        return self.num_enqueued / self.length

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Write keys over the oldest rows; of more than ``length`` the last stay.

        What was staged is forgotten: who enqueues by hand does not commit as well.

        Args:
            keys (Tensor): [m, dim], any m (with ``sync`` the same on every rank), any
                scale; stored normalised. With ``sync`` rank 0's keys are the oldest.

        Raises:
            ValueError: If the width is not ``dim`` or a key cannot be normalised (with
                ``sync`` on every rank); nothing is written then.
        """
        self.check_width(keys)
        rows, good = self._normalize(gather_rows(keys) if self.sync else keys)
        bad = int((~good).sum())
        if bad:
            raise ValueError(
                f"{bad} of {len(rows)} keys cannot be normalised: they are zero, too "
                "large, or not finite. Nothing was enqueued. Look at the training "
                "loss (config keys optim_wrapper.optimizer.lr, "
                "optim_wrapper.loss_scale)."
            )
        self._write(rows)
        self.discard()

    @torch.compiler.disable
    @torch.no_grad()
    def search(self, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Find the k rows most similar to each key among the filled ones.

        Args:
            keys (Tensor): [m, dim], any scale.
            k (int): Number of neighbors, 0 to ``len(self)``.

        Returns:
            tuple[Tensor, Tensor]: Cosine similarity [m, k] and row index [m, k]
            (int64), best first; equal similarities in any order. For the precision on
            GPUs see :func:`~snclr_mm.models.ops.top_k`.

        Raises:
            ValueError: If k is negative or above ``len(self)``, or the width differs.
        """
        if not 0 <= k <= len(self):
            raise ValueError(
                f"k={k} neighbors (config key model.head.num_neighbors) asked of a "
                f"queue with {len(self)} filled rows (of {self.length}): it must be "
                f"between 0 and {len(self)}."
            )
        self.check_width(keys)
        if keys.device != self.features.device:
            self.to(keys.device)  # FSDP moves parameters and buffers alone
        if k == 0:
            none = self.features.new_zeros(len(keys), 0)
            return none, none.long()
        with torch.autocast(keys.device.type, enabled=False):
            keys = F.normalize(keys.to(self.features.dtype), dim=1)
            return top_k(keys, self.features[: len(self)], k)

    @torch.compiler.disable
    def stage(self, keys: Tensor, gathered: bool = False, step: int = 0) -> None:
        """Keep a batch's keys until :meth:`commit` or :meth:`discard`.

        Args:
            keys (Tensor): [m, dim], any scale and dtype.
            gathered (bool): The keys are those of all ranks in order, m / world size
                of each, so that commit need not exchange them. Defaults to False.
            step (int): A number that changes when the optimizer has made a step.
                Defaults to 0.

        Raises:
            RuntimeError: If nobody commits: the optimizer has made a step, and keys of
                before still wait.
            ValueError: If the width is not ``dim``.
        """
        self.check_width(keys)
        if self._staged and (
            step != self._staged_at or len(self._staged) >= MOST_STAGED
        ):
            raise RuntimeError(
                "The model has a NeighborQueue, but nothing fills it: add "
                "custom_hooks=[dict(type='NeighborQueueHook')] to the config (in an "
                "own training loop, call queue.commit() after each optimizer step)."
            )
        rows = len(keys) * (get_world_size() if self.sync and not gathered else 1)
        if self._count == 0 and not self._staged and self.length < 4 * rows:
            print_log(
                f"Each step replaces {rows} of the queue's {self.length} rows, so "
                "neighbors are of less than four steps: a longer queue (config key "
                f"model.head.queue.length, {4 * rows} or more) or a smaller batch "
                "(train_dataloader.batch_size) is better.",
                logger="current",
                level=logging.WARNING,
            )
        self._staged_at = step
        self._staged.append((keys.detach(), get_world_size() if gathered else 1))

    @property
    def num_staged(self) -> int:
        """Number of local rows that wait for :meth:`commit`."""
        return sum(len(keys) // ranks for keys, ranks in self._staged)

    @torch.no_grad()
    def staged_is_finite(self) -> Tensor:
        """Whether what is staged on this rank can be normalised, a bool scalar."""
        good = [self._normalize(keys)[1].all() for keys, _ in self._staged]
        true = self.features.new_ones((), dtype=torch.bool)
        return torch.stack([true, *good]).all()

    @torch.no_grad()
    def commit(self, valid: bool = True, agreed: bool = False) -> bool:
        """Enqueue what is staged, unless it cannot be normalised on some rank.

        All ranks decide alike, also with ``sync=False``: their queues must stay equally
        full, because the number of neighbors is part of what the ranks exchange. Every
        rank must call this, with as many batches staged.

        Args:
            valid (bool): False refuses the rows, on every rank. Defaults to True.
            agreed (bool): The ranks know that ``valid`` is the same on all of them and
                has heard :meth:`staged_is_finite`: nothing is asked. Defaults to False.

        Returns:
            bool: Whether the rows were enqueued, the same on each rank.
        """
        # All ranks' first view, then all ranks' second view, ...: the order does not
        # depend on the number of ranks.
        rows = [
            self._normalize(gather_rows(keys) if self.sync and ranks == 1 else keys)
            for keys, ranks in self._staged
        ]
        self.discard()
        if not agreed:
            accepted = self.features.new_ones((), dtype=torch.bool) & valid
            for _, good in rows:
                accepted = accepted & good.all()
            valid = accepted.int()
            all_reduce(valid, "min")
        if not valid:
            return False
        for part, _ in rows:
            self._write(part)
        return True

    def discard(self) -> None:
        """Forget what is staged."""
        self._staged: list[tuple[Tensor, int]] = []  # keys, and of how many ranks
        self._staged_at = 0

    def check_width(self, keys: Tensor) -> None:
        """Raise ValueError unless ``keys`` is [m, dim]."""
        if keys.dim() != 2 or keys.shape[1] != self.dim:
            raise ValueError(
                f"features {list(keys.shape)} do not fit a queue of width {self.dim}: "
                "config key model.head.queue.dim must equal the projector's output "
                "width, model.neck.out_channels."
            )

    def extra_repr(self) -> str:
        return (
            f"length={self.length}, dim={self.dim}, init={self.init!r}, "
            f"sync={self.sync}"
        )

    def _normalize(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Unit rows as they are stored, [m, dim], and which ones are good, [m]."""
        keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
        norm = keys.norm(dim=1, keepdim=True)
        rows = (keys / norm.clamp_min(1e-12)).to(self.features)
        return rows, (norm.isfinite() & (norm > 1e-12))[:, 0]

    def _write(self, rows: Tensor) -> None:
        start = self._count + max(0, len(rows) - self.length)
        rows = rows[-self.length :]
        first = start % self.length
        until_end = min(len(rows), self.length - first)
        self.features[first : first + until_end] = rows[:until_end]
        self.features[: len(rows) - until_end] = rows[until_end:]
        self._count = start + len(rows)
        self.count.fill_(self._count)

    def _apply(self, fn, recurse: bool = True) -> "NeighborQueue":
        super()._apply(fn, recurse)
        for name in STATE:
            setattr(self, name, fn(getattr(self, name)))
        return self

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors
    ) -> None:
        features, count = (state_dict.get(f"{prefix}{name}") for name in STATE)
        if features is None or count is None:
            # Nothing is missing: the queue as it is is a valid start.
            print_log(
                f"The checkpoint holds no neighbor queue ({prefix}features): it starts "
                f"{self.init}, and fills up again.",
                logger="current",
                level=logging.WARNING,
            )
            return
        if not isinstance(features, Tensor) or features.dim() != 2:
            raise ValueError(f"{prefix}features in the checkpoint is no [length, dim].")
        if features.shape != self.features.shape:
            raise ValueError(
                f"The checkpoint's neighbor queue has length {features.shape[0]} and "
                f"width {features.shape[1]}, the model's has length {self.length} and "
                f"width {self.dim}: set queue.length and queue.dim to the checkpoint's "
                f"values, or drop {prefix}features from the checkpoint to start anew."
            )
        number = count.item() if count.numel() == 1 else -1
        if not isinstance(number, int) or not 0 <= number < MOST_COUNTED:
            raise ValueError(
                f"{prefix}count={number} in the checkpoint is no number of keys."
            )
        rows = features[: None if self.init == "random" else number]
        bad = int((~((rows.float().norm(dim=1) - 1).abs() < 0.1)).sum())
        if bad:
            raise ValueError(
                f"{bad} of {len(rows)} rows of {prefix}features in the checkpoint have "
                f"not length 1: the file was altered, or features were zero. Drop "
                f"{prefix}features from it to start with an empty queue."
            )
        self.features.copy_(features)
        self.count.copy_(count)
        self._count = int(count)
        self.discard()


def _add_state(queue: NeighborQueue, state_dict: dict, prefix: str, metadata) -> None:
    for name in STATE:
        state_dict[f"{prefix}{name}"] = getattr(queue, name).detach()
