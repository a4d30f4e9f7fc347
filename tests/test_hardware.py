import pytest
import torch

from snclr_mm import hardware
from snclr_mm.hardware import check_memory, free_bytes
from snclr_mm.models import NeighborQueue


def test_free_memory_of_this_machine():
    free = free_bytes(torch.device("cpu"))
    assert free is None or 0 < free < 2**50
    assert free_bytes(torch.device("meta")) is None


def test_a_container_may_be_allowed_less(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    machine = free_bytes(torch.device("cpu"))
    if machine is None:
        pytest.skip("no /proc/meminfo")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_bytes(torch.device("cpu")) > 5000
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_bytes(torch.device("cpu")) == 4000


def test_what_cannot_fit_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(hardware, "free_bytes", lambda device: 3 * 2**30)
    check_memory(2**31, torch.device("cpu"), "This", "advice")
    with pytest.raises(
        MemoryError, match=r"This needs about 4\.0 GiB on cpu.* 3\.0 GiB left: advice"
    ):
        check_memory(2**32, torch.device("cpu"), "This", "advice")
    monkeypatch.setattr(hardware, "free_bytes", lambda device: None)
    check_memory(2**50, torch.device("cpu"), "This", "advice")


def test_a_queue_that_cannot_fit_names_its_length():
    with pytest.raises(
        MemoryError, match=r"queue of 10000000000000 x 256 .*model\.head\.queue\.length"
    ):
        NeighborQueue(10**13, 256)
