from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Mixed precision in bfloat16 on a CPU, which MMEngine's AmpOptimWrapper refuses.

    Weights and optimizer stay float32, and bfloat16 needs no loss scaling. Worth it
    where :func:`~snclr_mm.hardware.has_fast_bfloat16`; elsewhere it is emulated and
    slow. Configs name ``AmpOptimWrapper`` with ``dtype='bfloat16'``: tools/train.py
    puts this class in its place where there is no accelerator.

    Args:
        kwargs: Of MMEngine's OptimWrapper.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield
