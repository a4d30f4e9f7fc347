import json
import os
import subprocess
from pathlib import Path

import benchmark_loss
import pytest
import report
import torch

REPOSITORY = Path(__file__).parents[2]
SUITE = REPOSITORY / "tools/benchmarks/run_gpu_suite.sh"


def row(ours_ms, ours_mib=10, **size):
    size = {**benchmark_loss.TARGET, **size}
    ways = {
        name: dict(ms=ms, quartiles_ms=[ms, ms], ratio=ms / ours_ms, peak_mib=mib)
        for name, ms, mib in (
            ("authors", 500, 90), ("direct", 300, 60), ("snclr_mm", ours_ms, ours_mib)
        )
    }  # fmt: skip
    return {**size, "largest_error": None, "ways": ways}


def test_says_which_targets_are_met(tmp_path, capsys):
    record = dict(
        device="cpu", cpu="some CPU", command="python benchmark_loss.py", autocast=None,
        features="random", projection="linear",
        results=[row(100), row(90, K=10), row(120, K=100), row(350, Q=4 * 65536)],
    )  # fmt: skip
    (tmp_path / "loss.json").write_text(json.dumps(record))
    (tmp_path / "tests.log").write_text("a test\n== 3 passed, 1 failed in 2s ==\n")
    text = report.main([str(tmp_path)])
    assert (tmp_path / "report.md").read_text() == text
    assert (
        "| loss step, (a) authors' way / ours | 5x | at least 6x | **missed**" in text
    )
    assert "(b) direct way / ours | 3x | at least 2x | met |" in text
    assert "| extra memory, ours / (b) | 0.167 | at most 0.333 | met |" in text
    assert "our time's growth / Q's, worst of 1 steps | 0.875 | at most 1 | met" in text
    assert "| our time, K = 100 / K = 10 | 1.33x | at most 1.2x | **missed**" in text
    assert "- GPU tests: 3 passed, 1 failed in 2s" in text
    assert "| 256 | 256 | 100 | 65536 | 256 | (d) snclr_mm | 120.00 |" in text


def test_targets_of_the_other_benchmarks(tmp_path, capsys):
    names = {
        "MoCoV3": 1, "SNCLR, K = 0": 1.01, "SNCLR, K = 30": 1.05, "and compile": 0.9
    }  # fmt: skip
    steps = [
        dict(name=name, ratio=ratio, ms=100 * ratio, quartiles_ms=[90, 110],
             memory_gib=None, compiled=False)
        for name, ratio in names.items()
    ]  # fmt: skip
    step = dict(
        device="cpu", cpu="some CPU", backbone="resnet18", batch=8, image_size=32,
        precision="fp32", queue_length=64, threads=1, results=steps,
        command="python benchmark_step.py",
    )  # fmt: skip
    rates = [dict(worker=w, device=w, loader=w) for w in (100, 250)]
    data = dict(workers=2, cases=[{"name": "A", "MMCV": rates[0], "gpu-aug": rates[1]}])
    size = dict(ranks=2, n=4, K=3, d=8)
    both = dict(snclr_mm=100, authors=900)
    comm = dict(
        measured=[dict(size, bytes_per_view=105, formula=both, ms=both)],
        computed=[dict(size, received_mb=both, ms=both)],
    )
    for name, record in (("step", step), ("data", data), ("comm", comm)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    text = report.main([str(tmp_path)])
    for line in (
        "whole step, K = 30 / MoCoV3 | 1.05x | at most 1.03x | **missed**",
        "whole step, K = 30 / K = 0 | 1.04x | at most 1.03x | **missed**",
        "best options (and compile) / MoCoV3 | 0.9x | at most 1x | met",
        "and compile (not compiled)",
        "images/s of a worker core, A | 2.5x | at least 3x | **missed**",
        "images/s of 2 workers and device, A | 2.5x | at least 3x | **missed**",
        "bytes per rank and view / n(2d + 4K) | 1.05x | at most 1.1x | met",
        "## Search, positiveness and loss\n\n**Not measured.**",
        "- cpu: some CPU",
    ):
        assert line in text


def test_an_empty_folder(tmp_path):
    with pytest.raises(SystemExit, match="no benchmark's JSON"):
        report.main([str(tmp_path)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_suite_needs_a_gpu(tmp_path):
    process = subprocess.run(
        ["bash", SUITE, tmp_path], capture_output=True, text=True, env=os.environ
    )
    assert process.returncode == 2
    assert "sees no GPU" in process.stderr


@pytest.mark.slow
def test_whole_suite_at_sizes_for_cpus(tmp_path):
    process = subprocess.run(
        ["bash", SUITE, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "DEVICE": "cpu"},
    )
    assert process.returncode == 0, process.stdout
    text = (tmp_path / "report.md").read_text()
    for _, title, *_ in report.PARTS[:-1]:
        assert f"## {title}" in text
