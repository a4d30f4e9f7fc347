from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import get_total_norm

from .utils import clean_up_after_errors, find_modules

SKIPPED = "skipped_steps"


@HOOKS.register_module()
class StepGuardHook(Hook):
    """Skips an optimizer step, on all ranks, whose loss or gradients are not finite.

    Nor may their norm overflow: the step would fill an optimizer's statistics with
    infinity, for good.

    Before each step the ranks agree on one flag, which the host reads once. A refused
    step finds no gradients, so weights and optimizer stay bitwise as they were, and the
    running statistics of normalization layers are put back to what they were before the
    step's first batch, also where a loss scaler refuses the step. What does go on, as
    after any step: iterations, schedules, and the momentum branch's move towards the
    online weights, which does not depend on the batch.

    NeighborQueueHook and RobustCheckpointHook add this hook by themselves. With several
    optimizers each one is guarded by itself.

    Raises:
        RuntimeError: After ``max_skipped_steps`` skipped steps in a row, 100 or what
            NeighborQueueHook is given: the run has diverged.
    """

    priority = "LOWEST"  # at the end of the list, where a hook can be added at any time

    def __init__(self) -> None:
        self.max_skipped_steps = 100
        #: Whether the last step was made, the same on each rank; None before one.
        self.kept: bool | None = None
        #: More conditions: each returns a bool scalar for what this rank has seen.
        self.checks: list[Callable[[], Tensor]] = []
        #: Set on any rank to have ``stopping`` set on all, after the same step.
        self.stop_requested = False
        self.stopping = False
        self._skipped = 0
        self._first = True  # no batch since the last step
        self._undo: list[Callable] = []

    @classmethod
    def of(cls, runner) -> "StepGuardHook":
        """The Runner's guard; it is added if there is none. To be called before_run."""
        for hook in runner.hooks:
            if isinstance(hook, cls):
                return hook
        runner.register_hook(cls())
        return cls.of(runner)

    def before_run(self, runner) -> None:
        """Let :meth:`after_train` be called also where training ends by an error."""
        clean_up_after_errors(runner, self.after_train)

    def before_train(self, runner) -> None:
        """Watch the optimizers."""
        self._skipped, self._first = 0, True
        by_type = defaultdict(list)
        for norm in find_modules(get_ori_model(runner.model), _NormBase).values():
            for buffer in norm.buffers(recurse=False):
                by_type[buffer.dtype, buffer.device].append(buffer)
        self._statistics = [
            (buffers, [torch.empty_like(b) for b in buffers])
            for buffers in by_type.values()
        ]
        for wrapper in wrappers(runner.optim_wrapper):
            handle = wrapper.optimizer.register_step_pre_hook(self._decide)
            wrapper.update_params = partial(self._update, wrapper)
            self._undo += [handle.remove, partial(delattr, wrapper, "update_params")]

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Keep the running statistics from before the step's first batch."""
        if not self._first:
            return
        self._first, self.kept = False, None
        self._loss_is_finite: Tensor | bool = True
        self._batches: list = []
        for buffers, copies in self._statistics:
            torch._foreach_copy_(copies, buffers)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Count skipped steps, and name their images."""
        self._batches.append(_samples(data_batch))
        if not any(w.should_update() for w in wrappers(runner.optim_wrapper)):
            return
        self._first = True
        if self.kept:
            self._skipped = 0
            return
        self._skipped += 1
        total = 1 + runner.message_hub.runtime_info.get(SKIPPED, 0)
        runner.message_hub.update_info(SKIPPED, total)
        # A step that the scaler refuses for its scale is no fault of the images.
        scaled = False
        if self.kept is None:  # on all ranks, which then did not agree on a flag
            flag = torch.as_tensor(self._loss_is_finite).int()
            all_reduce(flag, "min")
            scaled = bool(flag)
        where = [] if scaled else all_gather_object(_name(self._batches, data_batch))
        reason = (
            "the loss scaler (optim_wrapper.loss_scale) refused it"
            if scaled
            else "its loss, features or gradients are not finite, or a key is zero"
        )
        runner.logger.warning(
            f"Step {runner.iter + 1} was skipped on all ranks: {reason} "
            f"({self._skipped} of at most {self.max_skipped_steps} in a row, {total} "
            "in all). Weights, optimizer, running statistics and queue are as before."
            + "".join(f"\n  rank {rank}: {text}" for rank, text in enumerate(where))
        )
        if self._skipped >= self.max_skipped_steps:
            raise RuntimeError(
                f"{self._skipped} steps in a row were skipped or not finite: the run "
                "has diverged. Lower optim_wrapper.optimizer.lr or change precision "
                "(optim_wrapper.type) and resume from the last good checkpoint (limit: "
                "NeighborQueueHook.max_skipped_steps in custom_hooks)."
            )

    def after_train(self, runner) -> None:
        """Stop watching the optimizers."""
        while self._undo:
            self._undo.pop()()

    def _update(self, wrapper, loss: Tensor, *args, **kwargs) -> None:
        finite = loss.detach().isfinite().all()
        self._loss_is_finite = finite & self._loss_is_finite
        type(wrapper).update_params(wrapper, loss, *args, **kwargs)
        if wrapper.should_update() and not self.kept:
            for buffers, copies in self._statistics:
                torch._foreach_copy_(buffers, copies)

    @torch.no_grad()
    def _decide(self, optimizer, args, kwargs) -> None:
        """Agree with the other ranks; take the gradients away from a bad step."""
        params = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in params if p.grad is not None]
        # A fused optimizer is called even for a step that its loss scaler refuses.
        found_inf = getattr(optimizer, "found_inf", None)
        # On CPUs the largest value takes ten times as long as the sum of squares, which
        # overflows sooner where gradients are float16, or not yet scaled back.
        largest = found_inf is not None or torch.float16 in {g.dtype for g in grads}
        norm = get_total_norm(grads, torch.inf if largest else 2.0)
        flags = [norm.isfinite(), self._loss_is_finite, *(c() for c in self.checks)]
        if found_inf is not None:
            flags.append(found_inf == 0)
        good = torch.stack([torch.as_tensor(f).to(norm.device).all() for f in flags])
        flag = good.all() * (1 if self.stop_requested else 2)
        all_reduce(flag, "min")
        agreed = int(flag)  # the one wait for the device
        self.kept = agreed > 0 and self.kept is not False
        self.stopping |= agreed == 1
        if not self.kept:
            for p in params:
                p.grad = None


def wrappers(optim_wrapper) -> list:
    """The single OptimWrappers of one, or of an OptimWrapperDict."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return list(optim_wrapper.values())
    return [optim_wrapper]


def _samples(data_batch) -> list:
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    return list(samples or [])


def _name(batches: list[list], last) -> str:
    """Indices of a step's images; those with bad pixels by path, if they are known."""
    views = last.get("inputs", []) if isinstance(last, dict) else []
    for view in views if isinstance(views, list | tuple) else [views]:
        bad = ~view.isfinite().flatten(1).all(1)
        if bad.any() and len(bad) == len(batches[-1]):
            found = [s for s, b in zip(batches[-1], bad.tolist(), strict=True) if b]
            images = [(s.get("sample_idx"), s.get("img_path")) for s in found]
            return f"pixels are not finite in (index, path) {images}"
    return f"images {[s.get('sample_idx') for batch in batches for s in batch]}"
