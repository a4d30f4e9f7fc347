from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from mmengine.hooks import Hook
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn

from snclr_mm.engine.hooks.utils import check_at_least, clean_up_after_errors
from snclr_mm.evaluation import pool_features


class DiagnosticHook(Hook, metaclass=ABCMeta):
    """Base of the hooks that observe a training run and change nothing in it.

    In an iteration that measures, a subclass attaches itself to the model before the
    step and is detached after it; the other iterations do no work. Scalars get the name
    ``diagnostics/<name>``.

    Args:
        interval (int): Iterations between two measurements.

    Raises:
        ValueError: If ``interval`` is below 1.
    """

    # After NeighborQueueHook (55), before LoggerHook (60) reads the scalars.
    priority = 57

    def __init__(self, interval: int) -> None:
        check_at_least(self, "interval", interval)
        self.interval = interval
        self._attached: ExitStack | None = None
        self._warned = False

    def before_run(self, runner) -> None:
        """Detach also where training ends by an error."""
        clean_up_after_errors(runner, lambda _: self._detach())

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Attach to the model if this iteration measures."""
        if self._is_due(runner):
            self._attached = ExitStack()
            self._attach(get_ori_model(runner.model), self._attached)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Detach, measure, and hand the scalars to the log."""
        if self._attached is None:
            return
        self._detach()
        for name, value in self._measure(runner, data_batch).items():
            runner.message_hub.update_scalar(f"train/diagnostics/{name}", value)

    def _detach(self) -> None:
        if self._attached is not None:
            self._attached.close()
            self._attached = None

    def _is_due(self, runner) -> bool:
        return self.every_n_train_iters(runner, self.interval)

    @abstractmethod
    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
        """Observe the coming step; ``stack`` undoes it afterwards."""

    @abstractmethod
    def _measure(self, runner, data_batch: dict) -> dict[str, float]:
        """Scalars of the step that was observed, alike on each rank."""

    def _warn_once(self, runner, message: str) -> None:
        if not self._warned:
            self._warned = True
            runner.logger.warning(f"{type(self).__name__}: {message}")


class FirstViewFeatures:
    """The features of each image's first view, from the model's own forward pass.

    MMPretrain's algorithms pass the first view to the online backbone first: alone, or
    with others in one batch (SwAV: view after view, SimCLR: image after image). Which
    rows are the first view's is found by comparing the images.

    Args:
        model (nn.Module): An algorithm with ``data_preprocessor`` and ``backbone``.
        stack (ExitStack): Ends the observation.
        modules (Sequence[str]): ``'backbone'``, and ``'neck'`` for projections.
            Defaults to the backbone alone.

    Raises:
        RuntimeError: While training, if the first view is not what the backbone sees.
        ValueError: If the backbone does not give a feature map or vector per image.
    """

    def __init__(
        self,
        model: nn.Module,
        stack: ExitStack,
        modules: Sequence[str] = ("backbone",),
    ) -> None:
        #: [n, C] by module, float32, without gradient.
        self.features: dict[str, Tensor] = {}
        hooks = {
            "data_preprocessor": self._keep_view,
            "backbone": self._keep_backbone,
            "neck": self._keep_neck,
        }
        for name in ("data_preprocessor", *modules):
            module = getattr(model, name, None)
            if module is not None:
                stack.callback(module.register_forward_hook(hooks[name]).remove)

    def _keep_view(self, module, args, output) -> None:
        views = output["inputs"]
        self._view = views[0] if isinstance(views, list | tuple) else views

    @torch.no_grad()
    def _keep_backbone(self, module, args, output) -> None:
        if "backbone" in self.features:
            return
        self._rows = self._find_rows(args[0])
        last = output[-1] if isinstance(output, list | tuple) else output
        if not last.is_floating_point():
            raise ValueError(
                f"{type(module).__name__}'s last output is {last.dtype}, not features: "
                "this diagnostic does not suit the algorithm, remove it from "
                "custom_hooks."
            )
        self.features["backbone"] = pool_features(output)[self._rows]
        del self._view

    def _keep_neck(self, module, args, output) -> None:
        if "neck" in self.features:
            return
        first = output[0] if isinstance(output, list | tuple) else output
        rows = first.detach().float()[self._rows]
        self.features["neck"] = rows[: len(self.features["backbone"])]

    def _find_rows(self, images: Tensor) -> slice:
        n = len(self._view)
        one_after_the_other = slice(0, n)
        interleaved = slice(0, None, max(1, len(images) // n))
        for rows in (one_after_the_other, interleaved):
            if _is_same(images[rows], self._view):
                return rows
        raise RuntimeError(
            "The backbone does not see the first view of the images first, so its "
            "features have no known labels: remove OnlineLinearProbeHook, "
            "OnlineKNNHook and CollapseHook from custom_hooks for this algorithm."
        )


def batch_labels(data_batch: dict) -> Tensor:
    """The class of each image of a batch, [n], int64, -1 where it has not just one."""
    labels = [sample.get("gt_label") for sample in data_batch["data_samples"]]
    return torch.tensor([-1 if y is None or y.numel() != 1 else int(y) for y in labels])


def _is_same(images: Tensor, view: Tensor) -> bool:
    if images.shape != view.shape:
        return False
    if images.data_ptr() == view.data_ptr():
        return True
    # Not to the bit: the algorithm may have cast them.
    return torch.allclose(images.float(), view.float(), 1e-2, 1e-2, equal_nan=True)
