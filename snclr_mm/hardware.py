"""What this machine can do, and how to use it."""

import torch
from torch import Tensor


def has_fast_bfloat16() -> bool:
    """Whether this CPU, an x86, has instructions for bfloat16 products.

    False also where torch cannot tell, before ``torch.cpu.get_capabilities``.
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU; the host does not wait for a GPU."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
