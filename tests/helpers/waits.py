"""Notice where the host would wait for a GPU, without one.

On PyTorch's ``meta`` device whatever needs values raises by itself. What waits on a GPU
and does not raise there is a copy from the host's memory: here it does.
"""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Copies(TorchDispatchMode):
    """Raises where tensors are copied between devices while the host waits."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if operation._overloadpacket in (aten._to_copy, aten.copy_):
            tensors = [a for a in (*args, result) if isinstance(a, Tensor)]
            non_blocking = kwargs.get("non_blocking") or True in args[2:3]
            if len({t.device for t in tensors}) > 1 and not non_blocking:
                raise AssertionError(f"The host waits for a copy: {tensors}")
        return result


aten = torch.ops.aten


@contextmanager
def counted_waits():
    """Let ``meta`` tensors be true, and yield a list of those that were asked."""
    asked = []
    original = Tensor.__bool__

    def condition(tensor):
        if not tensor.is_meta:
            return original(tensor)
        asked.append(tensor)
        return True

    def refusing(make):
        def made(*args, **kwargs):
            result = make(*args, **kwargs)
            if result.is_meta:
                raise AssertionError(f"The host waits for a copy of {args}")
            return result

        return made

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "__bool__", condition))
        for owner, name in ((torch, "tensor"), (Tensor, "new_tensor")):
            make = refusing(getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, make))
        stack.enter_context(Copies())
        yield asked
