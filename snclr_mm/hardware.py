"""What this machine can do, and how much memory is left."""

from pathlib import Path

import torch

# Estimates below this are not compared: asking a device costs more than they matter.
SMALL_BYTES = 2**28
CGROUP = Path("/sys/fs/cgroup")


def has_fast_bfloat16() -> bool:
    """Whether this CPU, an x86, has instructions for bfloat16 products.

    False also where torch cannot tell, before ``torch.cpu.get_capabilities``.
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def free_bytes(device: torch.device) -> int | None:
    """Memory that a tensor on ``device`` can still take, None where unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        return free + reserved - torch.cuda.memory_allocated(device)
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        return None
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    if "MemAvailable" not in fields:
        return None
    available = 1024 * int(fields["MemAvailable"].split()[0])
    # A container or a Slurm job may be allowed less than the machine has.
    limit, used = (CGROUP / f"memory.{name}" for name in ("max", "current"))
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return available


def check_memory(needed: int, device: torch.device, what: str, advice: str) -> None:
    """Refuse, before it is tried, what cannot fit in the memory that is left.

    Args:
        needed (int): Estimate in bytes.
        device (torch.device): Where.
        what (str): What needs it, with its sizes.
        advice (str): Which config key to change.

    Raises:
        MemoryError: If ``needed`` is more than what is left.
    """
    if needed < SMALL_BYTES:
        return
    free = free_bytes(device)
    if free is not None and needed > free:
        raise MemoryError(
            f"{what} needs about {needed / 2**30:.1f} GiB on {device}, which has "
            f"{free / 2**30:.1f} GiB left: {advice}"
        )
