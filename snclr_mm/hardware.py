"""What this machine can do."""

import torch


def has_fast_bfloat16() -> bool:
    """Whether this CPU, an x86, has instructions for bfloat16 products.

    False also where torch cannot tell, before ``torch.cpu.get_capabilities``.
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
