"""Training in float16 with a loss scaler, on a GPU and on a CPU."""

from contextlib import contextmanager

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module(force=True)
class CPUFloat16OptimWrapper(AmpOptimWrapper):
    """On a CPU, which AmpOptimWrapper itself refuses."""

    def __init__(self, loss_scale, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu", **loss_scale)
        self._scale_update_param = None

    @contextmanager
    def optim_context(self, model):
        autocast = torch.autocast("cpu", torch.float16)
        with OptimWrapper.optim_context(self, model), autocast:
            yield


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
