from pathlib import Path

import pytest
import torch

from snclr_mm.hardware import has_fast_bfloat16


def test_bfloat16_as_the_kernel_knows_it():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "flags\t" not in (text := cpuinfo.read_text()):
        pytest.skip("no x86 flags in /proc/cpuinfo")
    assert has_fast_bfloat16() == bool({"avx512_bf16", "amx_bf16"} & {*text.split()})


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False}, False),
    ],
)
def test_bfloat16_of_other_cpus(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_fast_bfloat16() == expected


def test_bfloat16_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_fast_bfloat16()
