import random
import warnings
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import DistSamplerSeedHook
from mmengine.model import BaseAveragedModel
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model

from snclr_mm.models import ForeachCosineEMA

from .utils import find_modules

DATA = "data_order"  # in the checkpoint's meta
SEED, LENGTH = "seed", "iterations per epoch"


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

    It takes the place of MMEngine's DistSamplerSeedHook, the config key
    ``default_hooks.sampler_seed``. With FlexibleRunner, schedules are the checkpoint's.

    Raises:
        ValueError: On resume, if an epoch has another number of iterations than in the
            checkpoint: whatever counts iterations would be at the wrong place.
    """

    def before_train(self, runner) -> None:
        """Give each batch its seed; begin the momentum's schedule in a new run.

        With weights (``load_from``) the step of an earlier run's schedule has come.
        """
        if runner.iter == 0:
            model = get_ori_model(runner.model)
            for average in find_modules(model, BaseAveragedModel).values():
                # At step 0 the branch would become a copy of the online one.
                average.steps.clamp_(max=1)
                if isinstance(average, ForeachCosineEMA):
                    average.set_steps(int(average.steps))
        loader = runner.train_dataloader
        self._seed = _describe_data(runner)[SEED]
        self._batches = SeededBatches(loader.batch_sampler, self._seed)
        if loader.batch_sampler is not None:
            # torch refuses to exchange it, as its length must stay the same.
            vars(loader)["batch_sampler"] = self._batches

    def before_train_epoch(self, runner) -> None:
        """Find the place in the epoch."""
        super().before_train_epoch(runner)
        if _by_epoch(runner):
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
        saved, data = checkpoint["meta"].get(DATA), _describe_data(runner)
        if not isinstance(saved, dict):  # it was written without this hook
            info, saved = checkpoint["message_hub"]["runtime_info"], {}
            if _by_epoch(runner) and "max_iters" in info and info.get("max_epochs"):
                saved[LENGTH] = info["max_iters"] // info["max_epochs"]
        sampler = runner.train_dataloader.sampler
        if hasattr(sampler, "seed"):
            sampler.seed = saved.get(SEED, sampler.seed)
            data[SEED] = sampler.seed
        changed = _update(saved, data)
        if LENGTH in str(changed) and _by_epoch(runner):
            raise ValueError(
                "The run cannot be resumed, as its epochs have another length (in the "
                f"checkpoint -> now): {', '.join(changed)}. Schedules count iterations "
                "and would be wrong. Keep batch size x ranks, or start a new run from "
                "the weights: load_from=CHECKPOINT without resume."
            )
        if isinstance(runner, Runner):
            changed += self._reschedule(runner, checkpoint)
        if changed:
            more = f", and {len(changed) - 12} more" if len(changed) > 12 else ""
            runner.logger.warning(
                "Resumed with what the config says now, not with what the checkpoint "
                f"says (checkpoint -> now): {', '.join(changed[:12])}{more}."
            )

    def _reschedule(self, runner, checkpoint: dict) -> list[str]:
        """Write into the checkpoint what the config makes of its iteration."""
        schedulers, saved = runner.param_schedulers, checkpoint.get("optimizer")
        if (
            not saved
            or not isinstance(runner.optim_wrapper, OptimWrapper)
            or not isinstance(schedulers, list)
            or any(getattr(s, "need_val_args", False) for s in schedulers)
        ):
            return []  # several optimizers, or rates that follow a metric
        olds = [*checkpoint.get("param_schedulers", []), *saved["param_groups"]]
        news = [scheduler.state_dict() for scheduler in schedulers]
        news += runner.optim_wrapper.state_dict()["param_groups"]
        if list(map(_settings, olds)) == list(map(_settings, news)):
            return []  # a long run takes minutes to replay
        meta, length = checkpoint["meta"], len(runner.train_dataloader)
        with warnings.catch_warnings():
            # "scheduler.step() before optimizer.step()"
            warnings.simplefilter("ignore")
            for done in range(1, meta["iter"] + 1):
                ends = done % length == 0 and done // length <= meta["epoch"]
                for scheduler in schedulers:
                    if ends or not scheduler.by_epoch:
                        scheduler.step()
        own = runner.optim_wrapper.state_dict()
        states = [scheduler.state_dict() for scheduler in schedulers]
        names = [f"param_scheduler.{i}." for i in range(len(states))]
        names += [f"param_groups.{i}." for i in range(len(own["param_groups"]))]
        changed = []
        if len(olds) == len(names):  # else loading tells what does not fit
            news = [*states, *own["param_groups"]]
            for old, new, name in zip(olds, news, names, strict=True):
                changed += _update(old, new, name)
        if "base_param_settings" in own:
            saved["base_param_settings"] = own["base_param_settings"]
        checkpoint["param_schedulers"] = states
        return changed


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


def _by_epoch(runner) -> bool:
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def _describe_data(runner) -> dict:
    loader = runner.train_dataloader
    return {
        SEED: getattr(loader.sampler, "seed", runner.seed),
        "train_dataloader.batch_size": getattr(loader.batch_sampler, "batch_size", 0),
        "ranks": get_world_size(),
        "images": len(loader.dataset),
        LENGTH: len(loader),
    }


def _settings(state: dict) -> dict:
    """What does not change while a run goes on."""
    moving = ("last_step", "_global_step", "_last_value", "lr", "params")
    return {key: value for key, value in state.items() if key not in moving}


def _update(old: dict, new: dict, name: str = "") -> list[str]:
    """Take over the new values; returns which ones differ."""
    keys = [key for key in new if key != "params" and old.get(key) != new[key]]
    changed = [f"{name}{key} {old[key]} -> {new[key]}" for key in keys if key in old]
    old.update({key: new[key] for key in keys})
    return changed
