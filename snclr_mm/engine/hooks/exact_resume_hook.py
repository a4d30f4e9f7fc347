import random
import warnings
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import DistSamplerSeedHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

DATA = "data_order"


@HOOKS.register_module()
class ExactResumeHook(DistSamplerSeedHook):
    """Makes a resumed run the same, bit by bit, as one that was never interrupted.

    Random numbers are a function of the seed, the rank and the iteration alone: loading
    a batch, in whichever process, and a training step each start with a seed of their
    own. So there is no random state to be saved, and neither the number of workers nor
    an evaluation in between changes a run. In a resumed epoch the batches that were
    seen are not loaded again.

    Learning rates and other hyperparameters follow the config: the schedules are
    stepped anew from the start, so that another length of training is taken over. What
    differs from the checkpoint is logged.

    It takes the place of MMEngine's DistSamplerSeedHook (``default_hooks.sampler_seed``).
    With FlexibleRunner, schedules are those of the checkpoint.

    Raises:
        ValueError: On resume, if an epoch has another number of iterations than in the
            checkpoint: whatever counts iterations would be at the wrong place.
    """

    def before_train(self, runner) -> None:
        """Give each batch its seed."""
        loader = runner.train_dataloader
        self._seed = _sampler_seed(runner)
        if loader.batch_sampler is None:
            self._batches = SeededBatches([], self._seed)  # an iterable dataset
        else:
            # torch refuses to exchange it, as its length must stay the same.
            self._batches = SeededBatches(loader.batch_sampler, self._seed)
            vars(loader)["batch_sampler"] = self._batches

    def before_train_epoch(self, runner) -> None:
        """Find the place in the epoch."""
        super().before_train_epoch(runner)
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            done = runner.iter - runner.epoch * len(runner.train_dataloader)
            self._batches.position, self._batches.skip = runner.iter, done
        elif hasattr(runner.train_dataloader.sampler, "skip"):
            # The loop lets the sampler skip; others it draws from, from the start.
            self._batches.position = runner.iter

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Start the step with its own random numbers."""
        seed_everything(self._seed, get_rank(), runner.iter, 1)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what the order of the data depends on."""
        checkpoint["meta"][DATA] = _describe_data(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take over the order of the data; compute the schedules from the config."""
        if not runner._resume:
            return
        saved, data = checkpoint["meta"].get(DATA, {}), _describe_data(runner)
        seed = saved.pop("seed", data.pop("seed"))
        if hasattr(runner.train_dataloader.sampler, "seed"):
            runner.train_dataloader.sampler.seed = seed
        if not saved:  # it was not written with this hook
            hub = checkpoint["message_hub"]["runtime_info"]
            length = hub.get("max_iters", 0) / hub.get("max_epochs", 1)
            saved = {"iterations per epoch": int(length)} if length else {}
        changed = [
            f"{name} {saved[name]} -> {value}"
            for name, value in data.items()
            if saved.get(name, value) != value
        ]
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if by_epoch and any("iterations" in text for text in changed):
            raise ValueError(
                "The run cannot be resumed, as its epochs have another length (in the "
                f"checkpoint -> now): {', '.join(changed)}. Schedules count iterations "
                "and would be wrong. Keep batch size x ranks, or start a new run from "
                "the weights: load_from=CHECKPOINT without resume."
            )
        if changed:
            runner.logger.warning(
                f"Resumed with other data (in the checkpoint -> now): "
                f"{', '.join(changed)}."
            )
        if isinstance(runner, Runner):
            self._reschedule(runner, checkpoint)

    def _reschedule(self, runner, checkpoint: dict) -> None:
        """Write into the checkpoint what the config makes of its iteration."""
        schedulers, wrapper = runner.param_schedulers, runner.optim_wrapper
        single = isinstance(wrapper, OptimWrapper) and isinstance(schedulers, list)
        saved = checkpoint.get("optimizer")
        if (
            not single
            or not saved
            or any(getattr(s, "need_val_args", False) for s in schedulers)
        ):  # follows metrics, or not one list for one optimizer: as in the checkpoint
            return
        meta = checkpoint["meta"]
        length = len(runner.train_dataloader)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # "scheduler.step() before optimizer.step()"
            for done in range(1, meta["iter"] + 1):
                for scheduler in schedulers:
                    if not scheduler.by_epoch:
                        scheduler.step()
                if done % length == 0 and done // length <= meta["epoch"]:
                    for scheduler in schedulers:
                        if scheduler.by_epoch:
                            scheduler.step()
        states = [scheduler.state_dict() for scheduler in schedulers]
        changes = []
        for i, (old, new) in enumerate(
            zip(checkpoint.get("param_schedulers", []), states, strict=False)
        ):
            changes += _update(old, new, f"param_scheduler.{i}")
        checkpoint["param_schedulers"] = states
        now = wrapper.state_dict()
        for i, (old, new) in enumerate(
            zip(saved["param_groups"], now["param_groups"], strict=False)
        ):
            changes += _update(old, new, f"optimizer.param_groups.{i}")
        if "base_param_settings" in saved and "base_param_settings" in now:
            _update(saved["base_param_settings"], now["base_param_settings"], "")
        if changes:
            more = f", and {len(changes) - 12} more" if len(changes) > 12 else ""
            runner.logger.warning(
                "Resumed with the config's schedules, not the checkpoint's (checkpoint "
                f"-> now): {', '.join(changes[:12])}{more}."
            )


class SeededBatches:
    """A batch sampler whose batches carry the seed for their random numbers.

    Args:
        batches: The batch sampler that chooses the images.
        seed (int): Of the run; the same on all ranks.
    """

    def __init__(self, batches, seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.position = 0  # of the next batch in the run
        self.skip = 0  # batches to leave out when it is iterated the next time
        for name in ("sampler", "batch_size", "drop_last"):  # of torch's BatchSampler
            setattr(self, name, getattr(batches, name, None))

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator["SeededBatch"]:
        """Yield the batches after those that are skipped."""
        for batch in islice(self.batches, self.skip, None):
            self.position += 1
            yield SeededBatch(batch, (self.seed, get_rank(), self.position, 0))


class SeededBatch(list):
    """The indices of a batch: who reads them starts with its random numbers.

    The reader is the process that loads the images: a worker, or the main one.
    """

    def __init__(self, indices, seed: tuple) -> None:
        super().__init__(indices)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        seed_everything(*self.seed)
        return super().__iter__()

    def __reduce__(self) -> tuple:
        return SeededBatch, (tuple(super().__iter__()), self.seed)


def seed_everything(*numbers: int) -> None:
    """Seed Python, NumPy and torch, all devices included, from some numbers."""
    first, second, third = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(first))
    np.random.seed(second)
    torch.manual_seed(int(third))


def _sampler_seed(runner) -> int:
    return getattr(runner.train_dataloader.sampler, "seed", runner.seed)


def _describe_data(runner) -> dict:
    loader = runner.train_dataloader
    return {
        "seed": _sampler_seed(runner),
        "train_dataloader.batch_size": getattr(loader.batch_sampler, "batch_size", 0),
        "ranks": get_world_size(),
        "images": len(loader.dataset),
        "iterations per epoch": len(loader),
    }


def _update(old: dict, new: dict, name: str) -> list[str]:
    """Take over the new values; returns which ones differ."""
    keys = [key for key in new if key != "params" and old.get(key) != new[key]]
    changes = [f"{name}.{key} {old.get(key)} -> {new[key]}" for key in keys]
    old.update({key: new[key] for key in keys})
    return changes
