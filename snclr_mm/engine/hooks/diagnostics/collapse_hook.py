from collections import defaultdict
from contextlib import ExitStack

import torch
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from snclr_mm.engine.hooks.utils import check_at_least
from snclr_mm.evaluation import feature_std, rankme
from snclr_mm.models.ops import gather_rows

from .diagnostic_hook import DiagnosticHook, FirstViewFeatures


@HOOKS.register_module()
class CollapseHook(DiagnosticHook):
    """Whether features collapse: their effective rank and their spread.

    Of the backbone's features and the projections (the neck's output), over the first
    views of all ranks' batches:

    - ``diagnostics/backbone_rankme``, ``diagnostics/projection_rankme``: effective
      rank, see :func:`rankme`; at most the number of features and of rows;
    - ``diagnostics/backbone_std``, ``diagnostics/projection_std``: SimSiam's deviation,
      see :func:`feature_std`; 0 on collapse;
    - ``diagnostics/backbone_std_ratio``, ``diagnostics/projection_std_ratio``: the same
      in units of 1/sqrt(C), so 1 if features point everywhere.

    No labels are needed. Features that are not finite are not measured.

    Args:
        interval (int): Iterations between two measurements. Defaults to 50.
        num_batches (int): Batches, the last before the measurement, that are measured
            together; for an effective rank that a small batch does not bound. At most
            ``interval``. Defaults to 1.

    Raises:
        ValueError: If a number is below 1, or ``num_batches`` above ``interval``.
    """

    def __init__(self, interval: int = 50, num_batches: int = 1) -> None:
        super().__init__(interval)
        check_at_least(self, "num_batches", num_batches)
        if num_batches > interval:
            raise ValueError(
                f"CollapseHook.num_batches={num_batches} must be at most "
                f"CollapseHook.interval={interval} (config key custom_hooks)."
            )
        self.num_batches = num_batches
        self._batches: dict[str, list[Tensor]] = defaultdict(list)

    def _is_due(self, runner) -> bool:
        return -(runner.iter + 1) % self.interval < self.num_batches

    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
        self._view = FirstViewFeatures(model, stack, ("backbone", "neck"))

    def _measure(self, runner, data_batch: dict) -> dict[str, float]:
        for name, features in self._view.features.items():
            self._batches[name].append(features)
        if not self.every_n_train_iters(runner, self.interval):
            return {}
        scalars = {}
        for module, batches in self._batches.items():
            features = gather_rows(torch.cat(batches))
            if len(features) < 2 or not features.isfinite().all():
                continue
            name = "projection" if module == "neck" else module
            std = feature_std(features)
            scalars[f"{name}_rankme"] = rankme(features)
            scalars[f"{name}_std"] = std
            scalars[f"{name}_std_ratio"] = std * features.shape[1] ** 0.5
        self._batches.clear()
        return scalars
