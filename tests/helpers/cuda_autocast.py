"""Autocast on a CPU that keeps to float32 what autocast on a GPU does."""

import warnings
from contextlib import contextmanager

import torch

# Those of CUDA's list (ATen/autocast_mode.h, AT_FORALL_FP32 and the sums that take a
# dtype) that models and heads may call. A CPU's autocast has a shorter list.
FLOAT32 = (
    *("cosine_similarity", "cross_entropy_loss", "exp", "linalg_vector_norm", "log"),
    *("log_softmax.int", "logsumexp", "mse_loss", "nll_loss", "norm.ScalarOpt_dim"),
    *("pow.Tensor_Scalar", "prod", "reciprocal", "rsqrt", "softmax.int", "sum"),
    "sum.dim_IntList",
)
HALF = (torch.float16, torch.bfloat16)


@contextmanager
def cuda_autocast(dtype):
    """``torch.autocast("cpu", dtype)`` with CUDA's list of operations in float32."""
    library = torch.library.Library("aten", "IMPL")
    for name in FLOAT32:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it takes another kernel's place
            library.impl(name, _in_float32(operation), "AutocastCPU")
    try:
        with torch.autocast("cpu", dtype):
            yield
    finally:
        library._destroy()


def _in_float32(operation):
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(key):
            args = [
                a.float() if isinstance(a, torch.Tensor) and a.dtype in HALF else a
                for a in args
            ]
            return operation(*args, **kwargs)

    return kernel
