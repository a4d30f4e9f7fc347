import torch
from mmengine.dist import broadcast, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model

from snclr_mm.models import ForeachCosineEMA, NeighborHead, NeighborQueue

from .step_guard_hook import StepGuardHook, wrappers
from .utils import check_at_least, clean_up_after_errors, find_modules

RANK_QUEUES = "neighbor_queue_ranks"


@HOOKS.register_module()
class NeighborQueueHook(Hook):
    """Fills every NeighborQueue of the model, whatever algorithm holds it.

    After an optimizer step it commits the keys that the heads staged, so that a batch
    never finds itself; under gradient accumulation those of all the step's batches.
    Keys of a step that :class:`StepGuardHook`, which this hook adds, or the loss scaler
    skipped are dropped.

    It also owns the warm-up, in which training is plain InfoNCE or what else the head
    does without neighbors, and writes the queue's fill and the heads' ``log_vars`` to
    the log. The queue is part of the model's ``state_dict`` and thus of each
    checkpoint; of queues with ``sync=False`` the hook adds all ranks' contents, and
    gives each rank its own back on resume. An EMAHook's averaged model is saved with
    the same queue: averaged rows would be no features of any network.

    Args:
        start_epoch (int): First epoch (from 0) with neighbors, below the number of
            epochs; 0 under an iteration-based loop. Defaults to 0.
        min_fill (int | float): Real entries that a queue needs before it is searched:
            a number of rows, or as a float the share of its length. A head needs at
            least its K rows in any case. Defaults to 0.
        max_skipped_steps (int): Raise after so many skipped steps in a row: the run has
            diverged. Defaults to 100.

    Raises:
        ValueError: If a value is negative, or before training, if the warm-up would
            never end.
        RuntimeError: After ``max_skipped_steps`` skipped steps in a row.
    """

    # After EMAHook (50), which swaps the state that a checkpoint is loaded into; before
    # LoggerHook (60) and CheckpointHook, which read what this hook writes.
    priority = 55

    def __init__(
        self,
        start_epoch: int = 0,
        min_fill: int | float = 0,
        max_skipped_steps: int = 100,
    ) -> None:
        check_at_least(self, "start_epoch", start_epoch, 0)
        check_at_least(self, "max_skipped_steps", max_skipped_steps)
        if min_fill < 0 or (isinstance(min_fill, float) and min_fill > 1):
            raise ValueError(
                f"NeighborQueueHook.min_fill={min_fill} must be an int of at least 0, "
                "a number of rows, or a float from 0.0 to 1.0, the share of the "
                "queue's length (config key custom_hooks)."
            )
        self.start_epoch = start_epoch
        self.min_fill = min_fill
        self.max_skipped_steps = max_skipped_steps
        self._queues: dict[str, NeighborQueue] = {}
        self._heads: list[NeighborHead] = []
        self._searching: bool | None = None
        self._rank_queues: dict[str, dict] = {}

    def before_run(self, runner) -> None:
        """Let :meth:`after_train` be called also where training ends by an error."""
        clean_up_after_errors(runner, self.after_train)
        self._guard = StepGuardHook.of(runner)
        self._guard.max_skipped_steps = self.max_skipped_steps

    def before_train(self, runner) -> None:
        """Find the queues, and let their keys decide on a step, too."""
        model = get_ori_model(runner.model)
        self._queues = find_modules(model, NeighborQueue)
        self._heads = list(find_modules(model, NeighborHead).values())
        for average in find_modules(model, ForeachCosineEMA).values():
            average.max_iters = runner.max_iters
        if not self._queues:
            runner.logger.warning(
                "NeighborQueueHook: the model has no NeighborQueue, nothing to fill."
            )
        for name, queue in self._queues.items():
            if self._min_rows(queue) > queue.length:
                raise ValueError(
                    f"NeighborQueueHook.min_fill={self.min_fill} rows can never be "
                    f"reached: {name}.length={queue.length}."
                )
            queue.discard()
        self._check_start(runner)
        self._guard.checks = [queue.staged_is_finite for queue in self._queues.values()]

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Decide whether the heads use neighbors in this iteration."""
        due = runner.epoch >= self.start_epoch
        for queue in self._queues.values():
            queue.search_enabled = due and queue.num_enqueued >= self._min_rows(queue)
        heads = [head for head in self._heads if head.num_neighbors > 0]
        searching = all(head.ready for head in heads)
        if heads and searching != self._searching:
            self._searching = searching
            info_nce = all(head.starts_as_info_nce for head in heads)
            loss = "plain InfoNCE" if info_nce else "that of no neighbors"
            runner.logger.info(
                "NeighborQueueHook: neighbors are used from now on, and add positive "
                "pairs to the loss: that it rises here is expected."
                if searching
                else f"NeighborQueueHook: warm-up, the loss is {loss}, until "
                f"{max(head.num_neighbors for head in heads)} rows or more are filled."
            )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Commit what was staged if the optimizer stepped, else drop it."""
        if any(wrapper.should_update() for wrapper in wrappers(runner.optim_wrapper)):
            for queue in self._queues.values():
                queue.commit(bool(self._guard.kept), agreed=True)
            # MMEngine writes a checkpoint again after a best one: until the queues
            # change, what was collected is theirs.
            self._rank_queues = {}
        for name, value in self._log_vars().items():
            if outputs is None or name not in outputs:
                runner.message_hub.update_scalar(f"train/{name}", value)
        if self._guard.stopping or self._saves_now(runner, by_epoch=False):
            self._collect_rank_queues()

    def after_train_epoch(self, runner) -> None:
        """Collect per-rank queues if a checkpoint is about to be written."""
        if self._saves_now(runner, by_epoch=True):
            self._collect_rank_queues()

    def before_val(self, runner) -> None:
        """Collect per-rank queues if a best checkpoint may be written."""
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        if any(hook.save_best for hook in hooks):
            self._collect_rank_queues()

    def after_train(self, runner) -> None:
        """Forget what no step will follow."""
        for queue in self._queues.values():
            queue.discard()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the queues of all ranks where each rank has its own.

        An averaged model gets the queue as it is, before or after EMAHook looks at it.
        """
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                averaged = find_modules(hook.ema_model.module, NeighborQueue)
                for name, queue in self._queues.items():
                    averaged[name].load_state_dict(queue.state_dict())
        if self._rank_queues:
            checkpoint[RANK_QUEUES] = self._rank_queues

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Give each rank its own queue back."""
        for name, state in checkpoint.pop(RANK_QUEUES, {}).items():
            queue = find_modules(get_ori_model(runner.model), NeighborQueue).get(name)
            if queue is None or queue.sync:
                continue
            saved = len(state["count"])
            if saved != get_world_size():
                runner.logger.warning(
                    f"{name}: the checkpoint holds the queues of {saved} ranks, this "
                    f"run has {get_world_size()}; rank {get_rank()} takes that of rank "
                    f"{get_rank() % saved}."
                )
            for key, values in state.items():
                checkpoint["state_dict"][f"{name}.{key}"] = values[get_rank() % saved]

    def _check_start(self, runner) -> None:
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if self.start_epoch and not by_epoch:
            raise ValueError(
                f"NeighborQueueHook.start_epoch={self.start_epoch} (config key "
                f"custom_hooks) never comes: {type(runner.train_loop).__name__} counts "
                "no epochs. Use min_fill there, or train by epochs."
            )
        if self.start_epoch and self.start_epoch >= runner.max_epochs:
            raise ValueError(
                f"NeighborQueueHook.start_epoch={self.start_epoch} (config key "
                f"custom_hooks) never comes: training ends after "
                f"train_cfg.max_epochs={runner.max_epochs}. Set it between 0 and "
                f"{runner.max_epochs - 1}."
            )

    def _min_rows(self, queue: NeighborQueue) -> float:
        share = isinstance(self.min_fill, float)
        return self.min_fill * queue.length if share else self.min_fill

    def _log_vars(self) -> dict:
        values = {}
        for queue in self._queues.values():
            values["queue_fill"] = queue.fill
        for head in self._heads:
            values.update(head.log_vars)
        return values

    def _saves_now(self, runner, by_epoch: bool) -> bool:
        return any(
            _is_due(hook, runner)
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook) and hook.by_epoch == by_epoch
        )

    def _collect_rank_queues(self) -> None:
        # save_checkpoint runs on rank 0 alone, where no rank could be asked any more.
        if get_world_size() == 1:
            return
        for name, queue in self._queues.items():
            if queue.sync:
                continue
            parts = {key: [] for key in queue.state_dict()}
            for key, value in queue.state_dict().items():
                for rank in range(get_world_size()):
                    # One at a time: all at once would not fit on rank 0's device.
                    part = value.clone()
                    broadcast(part, src=rank)
                    if get_rank() == 0:
                        parts[key].append(part.cpu())
            if get_rank() == 0:
                stacked = {key: torch.stack(values) for key, values in parts.items()}
                self._rank_queues[name] = stacked


def _is_due(hook: CheckpointHook, runner) -> bool:
    if hook.by_epoch:
        return hook.every_n_epochs(runner, hook.interval, hook.save_begin) or (
            hook.save_last and hook.is_last_train_epoch(runner)
        )
    return hook.every_n_train_iters(runner, hook.interval, hook.save_begin) or (
        hook.save_last and hook.is_last_train_iter(runner)
    )
