"""Watch what is called, without changing what it does."""

import torch

from snclr_mm.models.ops.gather import ALL_GATHER


def spy_on(monkeypatch, module, *names):
    """Names of the module's functions, in the order they are called; filled later."""
    called = []
    for name in names:
        original = getattr(module, name)

        def spy(*args, name=name, original=original):
            called.append(name)
            return original(*args)

        monkeypatch.setattr(module, name, spy)
    return called


def spy_on_gathering():
    """Tensors that this process sends to all ranks, from now until it ends."""
    sent = []
    original = getattr(torch.distributed, ALL_GATHER)

    def spy(output, tensor, *args, **kwargs):
        sent.append(tensor)
        return original(output, tensor, *args, **kwargs)

    setattr(torch.distributed, ALL_GATHER, spy)
    return sent
