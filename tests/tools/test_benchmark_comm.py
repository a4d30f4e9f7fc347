import json

import pytest
from helpers.command import load_tool, tool

benchmark_comm = load_tool("benchmarks/benchmark_comm.py")


def test_two_processes_send_keys_and_indices_only(tmp_path):
    out = tmp_path / "comm.json"
    sizes = ["-n", "8", "-K", "3", "-d", "16", "--ranks", "2", "--rounds", "2"]
    options = ["-Q", "200", "--computed-ranks", "64", "--out", str(out)]
    # It starts processes, which have to find its module.
    printed = tool("benchmarks/benchmark_comm.py", *sizes, *options, cwd=tmp_path)
    record = json.loads(out.read_text())
    (row,) = record["results"]
    assert row["bytes_per_view"] == 8 * (2 * 16 + 4 * 3) == row["formula"]["snclr_mm"]
    assert row["other_bytes"] == 4  # whether all ranks accept the step
    assert row["ms"]["authors"] > 0
    (computed,) = record["computed"]
    assert computed["received_mb"]["authors"] == pytest.approx(
        2 * 63 * 8 * 4 * 16 * 2 / 1e6
    )
    assert "| 352" in printed


def test_a_wrong_loss_stops_it(monkeypatch):
    wrong = [[{"loss": 0.0}]]
    monkeypatch.setattr(benchmark_comm, "run_ranks", lambda *args: wrong)
    with pytest.raises(SystemExit, match="one process"):
        benchmark_comm.main(["-n", "8", "-K", "3", "-d", "16", "-Q", "200"])
