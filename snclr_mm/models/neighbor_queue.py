import logging

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from ..hardware import check_memory
from .neighbor_search import check_search, search_neighbors

INITS = ("empty", "random")


@MODELS.register_module()
class NeighborQueue(BaseModule):
    """The candidate set C: a first-in-first-out queue of past momentum features.

    State is two buffers, so it is saved, resumed and moved with the model:
    ``features`` [length, dim], unit rows, and ``count``, how many rows were ever
    enqueued, from which pointer and fill follow.

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
        search_backend (str): How the top K are found, see
            :func:`~snclr_mm.models.neighbor_search.search_neighbors`: ``'auto'``,
            ``'plain'``, ``'streaming'`` or ``'blocks'``. Defaults to ``'auto'``.
        search_precision (str): Of the first look at all rows; what it finds is compared
            in float32: ``'auto'``, ``'float32'``, ``'float16'`` or ``'bfloat16'``.
            Defaults to ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.

    Raises:
        ValueError: If ``length`` or ``dim`` is below 1, or ``init``, backend or
            precision is unknown.
        MemoryError: If the rows cannot fit in the host's memory.
    """

    def __init__(
        self,
        length: int,
        dim: int,
        init: str = "empty",
        sync: bool = True,
        search_backend: str = "auto",
        search_precision: str = "auto",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if length < 1 or dim < 1:
            raise ValueError(
                f"queue.length={length} and queue.dim={dim} must be at least 1."
            )
        if init not in INITS:
            raise ValueError(
                f"init={init!r} is unknown: use one of {INITS} (config key queue.init)."
            )
        check_search(search_backend, search_precision)
        check_memory(
            4 * length * dim,
            torch.device("cpu"),
            f"A queue of {length} x {dim} float32 values",
            "set a shorter queue (config key model.head.queue.length).",
        )
        self.length = length
        self.dim = dim
        self.init = init
        self.sync = sync
        self.search_backend = search_backend
        self.search_precision = search_precision
        features = torch.zeros(length, dim)
        if init == "random":
            # An own generator: the model's other weights do not depend on the queue.
            generator = torch.Generator().manual_seed(0 if sync else get_rank())
            features = F.normalize(torch.randn(length, dim, generator=generator), dim=1)
        self.register_buffer("features", features)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        # Mirrors `count`, so that a search need not wait for the device.
        self._count = 0
        self._staged: list[Tensor] = []
        self._staged_by: list[int] = []  # how many ranks' keys each one holds
        #: Whether a NeighborQueueHook commits what is staged; the hook sets it.
        self.managed = False
        self._runner: str | None = None
        #: False during warm-up: heads then train without neighbors; the hook sets it.
        self.search_enabled = True

    def init_weights(self) -> None:
        """Take note of the Runner that calls this before it trains."""
        super().init_weights()
        hub = MessageHub.get_current_instance()
        # A Runner that broke off leaves its stage behind: that one does not train us.
        self._runner = None if hub.get_info("loop_stage") else hub.instance_name

    def __len__(self) -> int:
        """Number of rows that :meth:`search` can find."""
        return self.length if self.init == "random" else self.num_enqueued

    def __bool__(self) -> bool:
        return True  # an empty queue is still a queue

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
            ValueError: If the width is not ``dim`` or a value is not finite (on every
                rank, and nothing is written).
        """
        self.check_width(keys)
        keys = self._gather(self._normalize(keys))
        bad = int((~keys.isfinite()).any(dim=1).sum())
        if bad:
            raise ValueError(
                f"{bad} of {len(keys)} keys hold values that are not finite, none may; "
                "nothing was enqueued. Look at the training loss "
                "(config keys optim_wrapper.optimizer.lr, optim_wrapper.loss_scale)."
            )
        self._write(keys)
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
            (int64), best first; equal similarities in any order.

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
        if k == 0:
            none = keys.new_zeros(len(keys), 0, dtype=self.features.dtype)
            return none, none.long()
        with torch.autocast(keys.device.type, enabled=False):
            return search_neighbors(
                self._normalize(keys),
                self.features[: len(self)],
                k,
                self.search_backend,
                self.search_precision,
            )

    @torch.compiler.disable
    def stage(self, keys: Tensor, gathered: bool = False) -> None:
        """Keep a batch's keys until :meth:`commit` or :meth:`discard`.

        Args:
            keys (Tensor): [m, dim], any scale and dtype.
            gathered (bool): The keys are those of all ranks in order, m / world size
                of each, so that commit need not exchange them. Defaults to False.

        Raises:
            RuntimeError: If nobody commits: in a Runner without NeighborQueueHook, or
                once more than a whole queue's worth of rows waits.
            ValueError: If the width is not ``dim``.
        """
        self.check_width(keys)
        ranks = get_world_size() if gathered else 1
        forgotten = self._in_training_runner() or (
            self.num_staged + len(keys) // ranks > self.length
        )
        if forgotten and not self.managed:
            raise RuntimeError(
                "The model has a NeighborQueue, but nothing fills it: add "
                "custom_hooks=[dict(type='NeighborQueueHook')] to the config (in an "
                "own training loop, call queue.commit() after each optimizer step)."
            )
        self._staged.append(keys.detach())
        self._staged_by.append(ranks)

    @property
    def num_staged(self) -> int:
        """Number of local rows that wait for :meth:`commit`."""
        return sum(
            len(keys) // ranks
            for keys, ranks in zip(self._staged, self._staged_by, strict=True)
        )

    @torch.no_grad()
    def commit(self, valid: bool = True) -> bool:
        """Enqueue what is staged, unless it is not finite on some rank.

        All ranks decide alike, also with ``sync=False``: their queues must stay equally
        full, because the number of neighbors is part of what the ranks exchange.

        Args:
            valid (bool): False refuses the rows, on every rank. Defaults to True.

        Returns:
            bool: Whether the rows were enqueued, the same on each rank.
        """
        staged, ranks = self._staged, self._staged_by
        self.discard()
        if not staged:
            return valid
        accepted = torch.stack([keys.isfinite().all() for keys in staged]).all() & valid
        accepted = accepted.int()
        all_reduce(accepted, "min")
        if not accepted:
            return False
        # All ranks' first view, then all ranks' second view, ...: the order does not
        # depend on the number of ranks.
        for keys, by in zip(staged, ranks, strict=True):
            self._write(self._normalize(keys if by > 1 else self._gather(keys)))
        return True

    def discard(self) -> None:
        """Forget what is staged."""
        self._staged, self._staged_by = [], []

    def extra_repr(self) -> str:
        return (
            f"length={self.length}, dim={self.dim}, init={self.init!r}, "
            f"sync={self.sync}"
        )

    def _in_training_runner(self) -> bool:
        hub = MessageHub.get_current_instance()
        return self._runner == hub.instance_name and (
            hub.get_info("loop_stage") == "train"
        )

    def _normalize(self, keys: Tensor) -> Tensor:
        return F.normalize(keys.to(self.features.dtype), dim=1)

    def _gather(self, keys: Tensor) -> Tensor:
        return torch.cat(all_gather(keys.contiguous())) if self.sync else keys

    def _write(self, keys: Tensor) -> None:
        start = self._count + max(0, len(keys) - self.length)
        keys = keys[-self.length :]
        first = start % self.length
        until_end = min(len(keys), self.length - first)
        self.features[first : first + until_end] = keys[:until_end]
        self.features[: len(keys) - until_end] = keys[until_end:]
        self._count = start + len(keys)
        self.count.fill_(self._count)

    def check_width(self, keys: Tensor) -> None:
        """Raise ValueError unless ``keys`` is [m, dim]."""
        if keys.dim() != 2 or keys.shape[1] != self.dim:
            raise ValueError(
                f"features {list(keys.shape)} do not fit a queue of width {self.dim}: "
                "config key model.head.queue.dim must equal the projector's output "
                "width, model.neck.out_channels."
            )

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        features = state_dict.get(f"{prefix}features")
        if features is None or f"{prefix}count" not in state_dict:
            print_log(
                f"The checkpoint holds no neighbor queue ({prefix}features): it starts "
                f"{self.init}, and fills up again.",
                logger="current",
                level=logging.WARNING,
            )
            # Nothing is missing: an empty queue is a valid start.
            state_dict = {
                **state_dict,
                f"{prefix}features": self.features.clone(),
                f"{prefix}count": self.count.clone(),
            }
        elif features.shape != self.features.shape:
            raise ValueError(
                f"The checkpoint's neighbor queue has length {features.shape[0]} and "
                f"width {features.shape[1]}, the model's has length {self.length} and "
                f"width {self.dim}: set queue.length and queue.dim to the checkpoint's "
                f"values, or drop {prefix}features from the checkpoint to start anew."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._count = int(self.count)
        self.discard()
