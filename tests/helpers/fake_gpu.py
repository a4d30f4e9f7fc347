"""A GPU where there is none: CPU tensors that refuse what those of a GPU would.

They say that they are on ``cuda:0``, so the code for GPUs runs; a NumPy array of them,
or an operation with a tensor of the CPU, raises as on a GPU. Kernels, autocast and
random numbers stay those of the CPU.
"""

import collections
import traceback
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

#: Methods and functions for which the host waits.
WAITS = (
    *("__bool__", "__contains__", "__float__", "__format__", "__index__", "__int__"),
    *("equal", "item", "masked_select", "nonzero", "tolist", "unique"),
)
#: These take tensors of the other device, or tell nothing of values.
MIXING = {
    *("__get__", "__getitem__", "__len__", "__repr__", "__set__", "__setitem__"),
    *("_has_compatible_shallow_copy_type", "backward", "copy_", "data_ptr", "dim"),
    *("element_size", "is_contiguous", "is_floating_point", "is_same_size", "numel"),
    *("register_hook", "requires_grad_", "size", "stride", "type_as"),
    "untyped_storage",
}


#: (what, where) -> how often the host waited.
_waits: collections.Counter = collections.Counter()


class FakeGPUTensor(Tensor):
    """A tensor of the CPU, on ``cuda:0`` for all that ask."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        if name == "__get__":
            told = {
                Tensor.device: torch.device("cuda", 0),
                Tensor.is_cpu: False,
                Tensor.is_cuda: True,
            }
            owner = getattr(func, "__self__", None)
            if owner in told:
                return told[owner]
        with torch._C.DisableTorchFunctionSubclass():
            return _call(func, name, args, kwargs)

    def __deepcopy__(self, memo):
        with torch._C.DisableTorchFunctionSubclass():
            return to_gpu(self.detach().clone())

    def __reduce_ex__(self, protocol):
        with torch._C.DisableTorchFunctionSubclass():
            return self.detach().as_subclass(Tensor).__reduce_ex__(protocol)


def to_gpu(value):
    """The same, with all its tensors on the GPU."""
    if isinstance(value, FakeGPUTensor):
        return value
    if isinstance(value, Tensor):
        return value.as_subclass(FakeGPUTensor)
    if hasattr(value, "_fields"):
        return type(value)(*map(to_gpu, value))
    if isinstance(value, tuple | list):
        return type(value)(map(to_gpu, value))
    return value


def _call(func, name, args, kwargs):
    if name in ("numpy", "__array__"):
        raise TypeError(f"cuda:0 tensor to NumPy at {_where()}")
    if name == "cpu" or (name == "to" and _device(args[1:], kwargs) == "cpu"):
        _wait("cpu")
        return args[0].as_subclass(Tensor).clone().to(*_dtype(args[1:], kwargs))
    if name in WAITS:
        _wait(name)
        result = func(args[0].as_subclass(Tensor), *args[1:], **kwargs)
        return to_gpu(result)
    if name == "to":
        return to_gpu(args[0].to(*_dtype(args[1:], kwargs)))
    if name not in MIXING:
        mixed = [t for t in _tensors(args, kwargs) if not isinstance(t, FakeGPUTensor)]
        if any(t.dim() > 0 for t in mixed):
            raise RuntimeError(f"{name} of tensors on both devices at {_where()}")
    indexes = name in ("__getitem__", "__setitem__")
    if indexes and any(t.dtype == torch.bool for t in _tensors(args[1:2])):
        _wait("mask")
    if str(kwargs.get("device", "")).startswith("cuda"):
        kwargs["device"] = "cpu"
    result = func(*args, **kwargs)
    told = name in MIXING and not isinstance(result, Tensor)
    return result if told else to_gpu(result)


class _Mode(TorchFunctionMode):
    """Makes such tensors where a GPU is named, and guards the CPU's own."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if any(isinstance(t, FakeGPUTensor) for t in _tensors(args, kwargs)):
            indexes = name in ("__getitem__", "__setitem__")
            if indexes and not isinstance(args[0], FakeGPUTensor):
                raise RuntimeError(f"a GPU's index for a CPU's tensor at {_where()}")
            return func(*args, **kwargs)
        if name == "pin_memory":
            return args[0]
        if name == "to" and _device(args[1:], kwargs).startswith("cuda"):
            with torch._C.DisableTorchFunctionSubclass():
                return to_gpu(args[0].clone().to(*_dtype(args[1:], kwargs)))
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
            return to_gpu(func(*args, **kwargs))
        return func(*args, **kwargs)


def _device(args, kwargs) -> str:
    """The device that ``to`` is called with, or nothing."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, str | torch.device):
            return str(value)
        if isinstance(value, Tensor):
            return "cuda" if isinstance(value, FakeGPUTensor) else str(value.device)
    return ""


def _dtype(args, kwargs) -> list[torch.dtype]:
    """The dtype that ``to`` is called with, or none."""
    values = [getattr(value, "dtype", value) for value in (*args, *kwargs.values())]
    return [value for value in values if isinstance(value, torch.dtype)]


def _tensors(*values) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _wait(what: str) -> None:
    _waits[what, _where()] += 1


def _where() -> str:
    """The line that asked, of the package or a library, not of torch's tensors."""
    skipped = ("fake_gpu.py", "torch/_tensor.py", "torch/utils/_device.py")
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.endswith(skipped):
            return f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}"
    return ""


@contextmanager
def fake_gpu():
    """Have a GPU; yields the counter of waits."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _waits.clear()
    with ExitStack() as stack:
        for name in ("mmengine.runner.runner", "snclr_mm.cli.machine"):
            patch = mock.patch(f"{name}.get_device", lambda: "cuda")
            stack.enter_context(patch)
        stack.callback(
            torch.__future__.set_overwrite_module_params_on_conversion, overwrite
        )
        stack.enter_context(_Mode())
        yield _waits
