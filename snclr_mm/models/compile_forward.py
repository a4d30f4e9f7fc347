import warnings
from typing import Any

from torch import nn


def compile_forward(module: nn.Module, **options: Any) -> None:
    """Compile what a call of the module computes, in place.

    As ``module.compile(**options)``: names of parameters stay, and copies are not
    compiled. But where torch cannot compile, for want of a C++ compiler or of Triton,
    the module goes on uncompiled, after a warning that is given once for all modules.

    Args:
        module (nn.Module): Changed in place.
        options: Of ``torch.compile``.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    module.compile(**options)
    compiled = module._compiled_call_impl

    def call(*args, **kwargs):
        try:
            return compiled(*args, **kwargs)
        except TorchDynamoException as error:
            module._compiled_call_impl = None
            _warn(error)
            return module(*args, **kwargs)

    module._compiled_call_impl = call


def _warn(error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        reason = " ".join(str(error).split("\n\n")[0].splitlines())
        warnings.warn(
            "torch.compile failed, so the model runs uncompiled (config key "
            f"model.compile): {type(error).__name__}: {reason}",
            stacklevel=3,
        )


_warned = False
