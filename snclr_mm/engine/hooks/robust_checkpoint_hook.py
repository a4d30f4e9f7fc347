import os
import re
import signal
import threading
import time
from collections import deque
from pathlib import Path

from mmengine.dist import (
    barrier,
    broadcast_object_list,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from snclr_mm.checkpoint_safety import load_checkpoint
from snclr_mm.engine.fileio.atomic_local_backend import PART

from .step_guard_hook import StepGuardHook, wrappers
from .utils import clean_up_after_errors

#: The exit code of a run that was stopped by a signal and can go on: EX_TEMPFAIL.
EXIT_CODE = 75
STOPPED = "stopped_at_iter_{}.pth"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
#: What torchrun and Slurm set where they start a run again.
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


@HOOKS.register_module()
class RobustCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook for runs that are killed, stopped and moved.

    - What a checkpoint replaces is deleted when the new one is complete, and a state
      that is not finite is not saved.
    - ``resume`` without a path takes the newest checkpoint in the work directory that
      can be read, wherever the directory was before, and so does a run that torchrun or
      Slurm starts again, whatever it was started with.
    - SIGTERM, SIGINT, SIGHUP or SIGUSR1 to any rank: all ranks finish the same step,
      ``stopped_at_iter_{n}.pth`` is saved, and the process exits with code 75. The next
      regular checkpoint replaces that file. A second Ctrl-C, two seconds later or more,
      ends the run at once.

    With FlexibleRunner, ``resume`` reads the file ``last_checkpoint`` as always.

    Args:
        kwargs: As for CheckpointHook.

    Raises:
        FileNotFoundError: If there are checkpoints to resume from, but all are broken.
        RuntimeError: Instead of saving a state that is not finite.
        OSError: If a checkpoint cannot be written; those before it are intact.
    """

    def before_run(self, runner) -> None:
        """Choose what to resume from."""
        self._guard = StepGuardHook.of(runner)
        self._handlers: dict = {}
        clean_up_after_errors(runner, self._stop_listening)
        if isinstance(runner, Runner) and isinstance(runner._train_loop, BaseLoop):
            self._choose_checkpoint(runner)

    def before_train(self, runner) -> None:
        """Listen to signals; remove what an earlier run has left unfinished."""
        super().before_train(runner)
        if runner.iter >= runner.max_iters:
            runner.logger.warning(
                f"This run has made all of its {runner.max_iters} steps: nothing is "
                "left to train. For more set train_cfg to a longer training."
            )
        if is_main_process():
            for part in Path(self.out_dir).glob(f"*.pth{PART}"):
                part.unlink()
        self._asked_at = 0.0
        self._runner, self._no_more_data = runner, False
        self._child_handler = None
        self._wait_for_data()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._handlers[number] = signal.signal(number, self._on_signal)

    def before_train_epoch(self, runner) -> None:
        """Note that the epoch before is complete, with all that hooks do at its end."""
        self._wait_for_data()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Note that the step must be finished before anything is saved."""
        self._busy = True

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Save if it is due; stop if a signal has asked for it."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self._done = runner.epoch, runner.iter + 1
        if self.is_last_train_iter(runner):
            return  # it needs no stop: the end of training saves it
        if self._guard.stopping:
            self._stop(runner)
        elif self._no_more_data:
            self._stop_alone()
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._busy = by_epoch and self.end_of_epoch(runner.train_dataloader, batch_idx)

    def before_val(self, runner) -> None:
        """Note that the weights may be averaged ones until validation ends."""
        self._busy = True

    def after_val(self, runner) -> None:
        """Note that the run may be stopped again."""
        if self._handlers and runner.iter < runner.max_iters:
            self._wait_for_data()

    def after_train(self, runner) -> None:
        """Leave signals to who had them before."""
        super().after_train(runner)
        self._stop_listening(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to save a state that no run could go on from."""
        tensors = dict(checkpoint["state_dict"])
        for i, state in (checkpoint.get("optimizer") or {}).get("state", {}).items():
            tensors |= {f"optimizer.{i}.{key}": value for key, value in state.items()}
        for name, value in tensors.items():
            # Shards are other types; a mask may hold infinities.
            plain = type(value) is Tensor and "mask" not in name
            if plain and not value.isfinite().all():
                raise RuntimeError(
                    f"{name} is not finite: nothing was saved, earlier checkpoints are "
                    "as they were. Lower optim_wrapper.optimizer.lr and --resume."
                )

    def _choose_checkpoint(self, runner) -> None:
        restarted = any(int(os.environ.get(name) or 0) for name in RESTARTS)
        folder = self._folder(runner)
        if not restarted and (not runner._resume or runner._load_from is not None):
            if not runner._resume and self._saved(runner, folder):
                runner.logger.warning(
                    f"{folder} holds checkpoints of an earlier run, which will be "
                    "overwritten. To continue that run: --resume."
                )
            return
        newest = [self._find_newest(runner, folder) if is_main_process() else None]
        broadcast_object_list(newest)
        if newest[0] is not None:
            runner._resume, runner._load_from = True, newest[0]
        elif runner._load_from is None:
            runner._resume = False
            runner.logger.warning(
                f"There is no checkpoint in {folder} to resume from: training starts "
                "from the beginning."
            )

    def _folder(self, runner) -> Path:
        folder = Path(runner.work_dir)
        own = self.out_dir not in (None, runner.work_dir)
        return Path(self.out_dir, folder.name) if own else folder

    def _saved(self, runner, folder: Path) -> list[Path]:
        """Checkpoints to resume from, oldest first."""
        unit = len(runner.train_dataloader) if self.by_epoch else 1
        found = []
        for order, (template, scale) in enumerate(
            [(STOPPED, 1), (self.filename_tmpl, unit)]
        ):
            pattern = re.escape(template).replace(r"\{\}", r"(\d+)")
            for path in folder.glob(template.format("*")):
                if match := re.fullmatch(pattern, path.name):
                    found.append((int(match[1]) * scale, order, path))
        return [path for *_, path in sorted(found)]

    def _find_newest(self, runner, folder: Path) -> str | None:
        """The newest checkpoint that can be read."""
        saved = self._saved(runner, folder)
        for path in reversed(saved):
            try:
                load_checkpoint(path)
            except (OSError, ValueError) as error:
                runner.logger.warning(f"Not resumed from this file: {error}")
            else:
                return str(path)
        if saved:
            raise FileNotFoundError(
                f"None of the {len(saved)} checkpoints in {folder} can be read. Move "
                "them away to start from the beginning."
            )
        return None

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        """As MMEngine's, but old files go when the new one is complete."""
        outdated = []
        if self.max_keep_ckpts > 0:
            ids = [*(i for i in self.keep_ckpt_ids if i != step), step]
            outdated = [
                self.filename_tmpl.format(i) for i in ids[: -self.max_keep_ckpts]
            ]
            self.keep_ckpt_ids = deque(ids[-self.max_keep_ckpts :])
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        self._save(runner, name, meta, self.by_epoch)
        if not is_main_process():
            return
        self.file_backend.put(
            self.last_ckpt.encode(), os.path.join(runner.work_dir, "last_checkpoint")
        )
        stopped = Path(self.out_dir).glob(STOPPED.format("*"))
        for old in (*outdated, *(path.name for path in stopped)):
            path = self.file_backend.join_path(self.out_dir, old)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save(self, runner, name: str, meta: dict, by_epoch: bool) -> None:
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        except OSError as error:
            raise OSError(
                f"{name} could not be saved in {self.out_dir} ({error}). Checkpoints "
                "before it are intact: make room, then continue with --resume."
            ) from error

    def _save_best_checkpoint(self, runner, metrics) -> None:
        """As MMEngine's, but the old file goes when the new one is complete."""
        if not self.save_best:
            return
        backend = self.file_backend
        self.file_backend = late = _DeferredRemoval(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = getattr(self, "best_ckpt_path_dict", {}).values()
        current = {getattr(self, "best_ckpt_path", None), *best}
        for path in late.outdated:
            if path not in current:
                backend.remove(path)

    def _on_signal(self, number: int, frame) -> None:
        now = time.monotonic()
        # Once is seldom alone: terminal and launcher both pass Ctrl-C on.
        again = self._guard.stop_requested and now > self._asked_at + 2
        if number == signal.SIGINT and again:
            raise KeyboardInterrupt
        self._asked_at = self._asked_at or now
        self._guard.stop_requested = True
        if number == signal.SIGTERM and self._child_handler is None:
            # Its sender may mean the data workers too, which die of it. torch would
            # raise an error for that, in the middle of the step or at any time later.
            previous = signal.signal(signal.SIGCHLD, self._on_end_of_child)
            self._child_handler = previous or signal.SIG_DFL

    def _on_end_of_child(self, number: int, frame) -> None:
        # torch's handler raises where a worker has failed, once for each data loader;
        # there is none where there are no workers.
        for _ in range(8 if callable(self._child_handler) else 0):
            try:
                self._child_handler(number, frame)
            except RuntimeError:
                self._no_more_data = True
            else:
                break
        if self._no_more_data and not self._busy:  # it waits for data, in vain
            self._stop_alone()

    def _wait_for_data(self) -> None:
        """From here to the next step nothing is lost where the run is stopped."""
        self._done = self._runner.epoch, self._runner.iter
        if self._no_more_data:
            self._stop_alone()
        self._busy = False

    def _stop_alone(self) -> None:
        optimizers = wrappers(self._runner.optim_wrapper)
        whole = any(w.should_update() for w in optimizers)  # no gradients wait
        # Other ranks may be in the next step.
        if get_world_size() > 1 or not whole:
            raise RuntimeError(
                "SIGTERM has ended the data workers too, and nothing was saved: "
                "continue from the last checkpoint with --resume."
            )
        self._stop(self._runner)

    def _stop(self, runner) -> None:
        self._busy = True  # nothing may interrupt what follows
        epoch, step = self._done
        name = STOPPED.format(step)
        self._save(runner, name, dict(epoch=epoch, iter=step), by_epoch=False)
        barrier()  # a rank that exits earlier makes launchers kill the one that saves
        runner.logger.warning(
            f"Stopped by a signal after iteration {step} of {runner.max_iters}; "
            f"continue with --resume (saved: {os.path.join(self.out_dir, name)})."
        )
        raise SystemExit(EXIT_CODE)

    def _stop_listening(self, runner) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        if signal.getsignal(signal.SIGCHLD) == self._on_end_of_child:
            signal.signal(signal.SIGCHLD, self._child_handler)


class _DeferredRemoval:
    """A file backend that only notes what it should remove."""

    def __init__(self, backend) -> None:
        self.backend = backend
        self.outdated: list[str] = []

    def remove(self, path: str) -> None:
        self.outdated.append(path)

    def __getattr__(self, name: str):
        return getattr(self.backend, name)
