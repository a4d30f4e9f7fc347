"""Training in float16 with a loss scaler, on a GPU and on a CPU."""

from contextlib import contextmanager

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module(force=True)
class CPUFloat16OptimWrapper(OptimWrapper):
    """What AmpOptimWrapper does on a GPU, on a CPU, which it refuses."""

    def __init__(self, loss_scale, **kwargs):
        super().__init__(**kwargs)
        self.scaler = torch.amp.GradScaler("cpu", **loss_scale)

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast("cpu", torch.float16):
            yield

    def backward(self, loss, **kwargs):
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()


#: The first step overflows float16, the others do not.
OVERFLOWS_ONCE = dict(init_scale=2.0**40, backoff_factor=2.0**-30)

on_each_device = pytest.mark.parametrize(
    "wrapper",
    [
        pytest.param(
            "CPUFloat16OptimWrapper",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU"),
        ),
        pytest.param("AmpOptimWrapper", marks=pytest.mark.gpu),
    ],
)
