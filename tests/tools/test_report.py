import json
import os
import tarfile

import pytest
import torch
from helpers.command import load_tool, run
from helpers.tiny import REPOSITORY

benchmark_loss = load_tool("benchmarks/benchmark_loss.py")
report = load_tool("benchmarks/report.py")
SUITE = REPOSITORY / "tools/benchmarks/run_gpu_suite.sh"
MACHINE = dict(cpu="some CPU", command="python benchmark.py")


def loss_row(ours_ms, ours_mib=10, **size):
    size = {**benchmark_loss.TARGET, **size}
    ways = {
        name: dict(ms=ms, quartiles_ms=[ms, ms], ratio=ms / ours_ms, peak_mib=mib)
        for name, ms, mib in (
            ("authors", 500, 90), ("direct", 300, 60), ("snclr_mm", ours_ms, ours_mib)
        )
    }  # fmt: skip
    agreement = dict(error=1e-6, gap=2e-7, other_neighbors=1, agrees=True)
    return {**size, "agreement": {"snclr_mm": agreement}, "ways": ways}


def write(folder, name, **record):
    (folder / f"{name}.json").write_text(json.dumps({**MACHINE, **record}))


@pytest.fixture
def text(tmp_path, capsys):
    """Write the report, and return it with single spaces."""

    def make():
        text = report.main([str(tmp_path)])
        assert (tmp_path / "report.md").read_text() == text
        targets = text.split("## Search")[0].strip()
        assert targets in capsys.readouterr().out
        return "\n".join(" ".join(line.split()) for line in text.splitlines())

    return make


def test_says_which_targets_are_met(tmp_path, text):
    rows = [loss_row(100), loss_row(90, K=10), loss_row(120, K=100)]
    rows.append(loss_row(350, Q=4 * 65536))
    write(tmp_path, "loss", results=rows)
    (tmp_path / "tests.log").write_text("a test\n== 3 passed, 1 failed in 2s ==\n")
    written = text()
    for line in (
        "| loss step, (a) authors' way / ours | at least 2.5x | 5x | met |",
        "| loss step, (b) direct way / ours | at least 1.7x | 3x | met |",
        "| extra memory, ours / (b) | at most 0.333x | 0.1667x | met |",
        "| our time's growth / Q's, worst step | at most 1x | 0.875x | met |",
        "| our time's growth / N's, worst step | at most 1x | | not measured |",
        "| our time, K = 100 / K = 10 | at most 1.2x | 1.333x | **missed** |",
        "| whole step, K = 30 / MoCoV3 | at most 1.03x | | not measured |",
        "| images/s of a worker core, each data set | at least 3x | | not measured |",
        "- GPU tests: 3 passed, 1 failed in 2s",
        "- cpu: some CPU",
        "| 256 | 256 | 100 | 65536 | 256 | (d) snclr_mm | 1e-06 | 2e-07 | 1 | True |",
        "| 256 | 256 | 100 | 65536 | 256 | (d) snclr_mm | 120 | 120 – 120 | 1 | 10 |",
    ):
        assert line in written


def test_targets_of_the_other_benchmarks(tmp_path, text):
    ratios = {
        "MoCoV3": 1, "SNCLR, K = 0": 1.01, "SNCLR, K = 30": 1.05, "and options": 0.9
    }  # fmt: skip
    steps = [
        dict(name=name, ratio=ratio, ms=100 * ratio, quartiles_ms=[90, 110])
        for name, ratio in ratios.items()
    ]
    write(tmp_path, "step", results=steps)
    rates = [
        dict(worker=w, device=w, loader=w, both=w / 2, cores={"1000": 4})
        for w in (100, 250)
    ]
    cases = [{"name": "A", "MMCV": rates[0], "gpu-aug": rates[1]}]
    write(tmp_path, "data", results=cases)
    size = dict(ranks=2, n=4, K=3, d=8)
    both = dict(snclr_mm=100, authors=900)
    write(
        tmp_path, "comm", gbps=200,
        results=[dict(size, bytes_per_view=105, formula=both, ms=both)],
        computed=[dict(size, received_mb=both, ms=both)],
    )  # fmt: skip
    written = text()
    for line in (
        "| whole step, K = 30 / MoCoV3 | at most 1.03x | 1.05x | **missed** |",
        "| whole step, K = 30 / K = 0 | at most 1.03x | 1.04x | **missed** |",
        "| whole step, as shipped (and options) / MoCoV3 | at most 1.03x | 0.9x |",
        "| whole step, best options (and options) / MoCoV3 | at most 1x | 0.9x | met |",
        "| images/s of a worker core, A | at least 3x | 2.5x | **missed** |",
        "| images/s of all workers, A | at least 3x | 2.5x | **missed** |",
        "| bytes per rank and view / n(2d + 4K) | at most 1.1x | 1.05x | met |",
        "| loss step, (a) authors' way / ours | at least 2.5x | | not measured |",
        "## Search, positiveness and loss\n\n**Not measured.**",
        "| and options | 0.9 | 90 | 90 – 110 |",
    ):
        assert line in written


def test_targets_on_a_gpu(tmp_path, text):
    ratios = {
        "MoCoV3": 1, "SNCLR, K = 0": 1, "SNCLR, K = 30": 1.005, "K = 30, ForeachLARS":
        0.99, "and channels last, cudnn_benchmark": 0.8,
    }  # fmt: skip
    steps = [dict(name=name, ratio=ratio) for name, ratio in ratios.items()]
    write(tmp_path, "step", results=steps, gpu="some GPU")
    written = text()
    for line in (
        "| whole step, K = 30 / K = 0 | at most 1.01x | 1.005x | met |",
        "| whole step, as shipped (K = 30, ForeachLARS) / MoCoV3 | at most 1x |",
        "| whole step, best options (and channels last, cudnn_benchmark) / MoCoV3 | "
        "at most 0.75x | 0.8x | **missed** |",
        "| loss step, (a) authors' way / ours | at least 20x | | not measured |",
        "- gpu: some GPU",
    ):
        assert line in written


def test_only_the_tests_ran(tmp_path, text):
    (tmp_path / "tests.log").write_text("== 3 passed in 2s ==\n")
    assert "- GPU tests: 3 passed in 2s" in text()


def test_an_empty_folder(tmp_path):
    with pytest.raises(SystemExit, match="no benchmark's JSON"):
        report.main([str(tmp_path)])


def test_a_training_alone(text, tmp_path):
    log = "INFO - resumed epoch: 0, iter: 4\n" + "".join(
        f"INFO - Epoch(val) [{i}][2/2]    knn/top1: {40 + i}.5000  time: 2\n"
        for i in (2, 4)
    )
    (tmp_path / "train.log").write_text(log)
    assert "- Training, resumed: kNN 42.5000, 44.5000 %" in text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_suite_needs_a_gpu(tmp_path):
    assert "sees no GPU" in run(SUITE, tmp_path / "out", cwd=tmp_path, fails=True)
    assert not list(tmp_path.iterdir())


def test_suite_explains_itself_and_makes_no_folder(tmp_path):
    assert "Parts: tests loss" in run(SUITE, "--help", cwd=tmp_path)
    assert "speed is no part" in run(SUITE, "out", "speed", cwd=tmp_path, fails=True)
    without = run(SUITE, "out", "train", cwd=tmp_path, fails=True)
    assert "IMAGES: names the folder" in without
    assert not list(tmp_path.iterdir())


def run_suite(monkeypatch, tmp_path, *parts):
    monkeypatch.setenv("DEVICE", "cpu")
    out = tmp_path / "out"
    printed = run(SUITE, "out", *parts, cwd=tmp_path)
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        packed = {os.path.basename(name) for name in archive.getnames()}
    assert packed == {"out", *(file.name for file in out.iterdir())}
    return out, printed


def test_a_part_by_name_deletes_nothing(monkeypatch, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("loss_clusters.json", "notes.txt", "report.md"):
        (out / name).write_text("{}")
    (tmp_path / "out.tar.gz").write_text("mine")
    _, printed = run_suite(monkeypatch, tmp_path, "loss_clusters")
    assert "loss_clusters: exit 0" in printed
    assert "not measured" in printed
    assert {file.name for file in out.iterdir()} == {
        "loss_clusters.json", "loss_clusters.json.old", "loss_clusters.log",
        "notes.txt", "report.md", "report.md.old",
    }  # fmt: skip
    for kept in ("loss_clusters.json.old", "report.md.old", "notes.txt"):
        assert (out / kept).read_text() == "{}"
    assert (tmp_path / "out.tar.gz.old").read_text() == "mine"


@pytest.mark.slow
def test_whole_suite_at_sizes_for_cpus(monkeypatch, tmp_path):
    out, _ = run_suite(monkeypatch, tmp_path)
    written = (out / "report.md").read_text()
    for name, (title, *_) in list(report.PARTS.items())[:-2]:
        assert f"## {title}\n\n`python" in written, name
