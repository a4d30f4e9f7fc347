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


def test_a_wrong_loss_is_told_and_the_run_goes_on(monkeypatch, tmp_path):
    seconds = dict(snclr_mm=[1.0], authors=[2.0])
    wrong = dict(loss=0.0, sent=1, other=0, collectives=1, seconds=seconds)
    monkeypatch.setattr(benchmark_comm, "run_ranks", lambda *args: [[wrong]])
    sizes = ["-n", "8", "-K", "3", "-d", "16", "-Q", "200", "--ranks", "2", "3"]
    out = tmp_path / "comm.json"
    with pytest.raises(SystemExit, match="one process"):
        benchmark_comm.main([*sizes, "--out", str(out)])
    rows = json.loads(out.read_text())["results"]
    assert [row["loss_error"] for row in rows] == [1, 1]
