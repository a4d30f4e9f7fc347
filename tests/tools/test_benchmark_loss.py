import json

import pytest
import torch
from helpers.command import load_tool

benchmark_loss = load_tool("benchmarks/benchmark_loss.py")

SIZES = ["-n", "8", "-N", "8", "24", "-K", "3", "-Q", "300", "-d", "16"]


@pytest.fixture
def run(tmp_path, capsys):
    def run(*options, fails=False):
        out = tmp_path / "loss.json"
        args = ["--device", "cpu", "--rounds", "2", "--out", str(out), *options]
        if fails:
            with pytest.raises(SystemExit, match="snclr_mm differs from"):
                benchmark_loss.main(args)
        else:
            benchmark_loss.main(args)
        return json.loads(out.read_text()), capsys.readouterr().out

    return run


@pytest.mark.parametrize("projection", ["identity", "linear"])
def test_all_ways_agree_and_are_timed(run, projection):
    record, printed = run(*SIZES, "--projection", projection)
    assert record["torch"] == torch.__version__
    assert [row["N"] for row in record["results"]] == [8, 24]
    for row in record["results"]:
        assert {"authors", "direct", "snclr_mm"} <= set(row["ways"])
        for found in row["agreement"].values():
            assert found["agrees"]
            assert found["error"] < 1e-4
            assert found["other_neighbors"] == 0
        assert row["ways"]["snclr_mm"]["ratio"] == 1
        assert all(way["ms"] > 0 for way in row["ways"].values())
        assert row["ways"]["direct"]["peak_mib"] > 0
    assert "(a) authors' way" in printed


def test_autocast(run):
    record, _ = run(*SIZES, "--autocast", "bfloat16")
    for row in record["results"]:
        assert set(row["agreement"]) == {"snclr_mm"}
        assert row["agreement"]["snclr_mm"]["error"] < 0.05


def test_a_wrong_loss_is_told_and_the_run_goes_on(run, monkeypatch):
    original = benchmark_loss.ours

    def wrong(*args):
        way = original(*args)
        return way._replace(loss=lambda: 1.01 * way.loss())

    monkeypatch.setattr(benchmark_loss, "ours", wrong)
    record, printed = run(*SIZES, fails=True)
    assert [row["agreement"]["snclr_mm"]["agrees"] for row in record["results"]] == [
        False,
        False,
    ]
    assert record["results"][0]["agreement"]["authors"]["agrees"]
    assert "snclr_mm differs from (b)" in printed


def test_equally_near_rows_may_change_places(run, monkeypatch):
    original = benchmark_loss.Batch

    def batch_of_twins(**kwargs):
        batch = original(**kwargs)
        batch.rows[1::2] = batch.rows[::2]  # every row twice
        return batch

    monkeypatch.setattr(benchmark_loss, "Batch", batch_of_twins)
    search = benchmark_loss.ours

    def other_twins(*args):
        way = search(*args)
        return way._replace(search=lambda key: way.search(key) ^ 1)

    monkeypatch.setattr(benchmark_loss, "ours", other_twins)
    record, _ = run(*SIZES)
    found = record["results"][0]["agreement"]["snclr_mm"]
    assert found["agrees"] and found["other_neighbors"] > 0


def test_infonce_and_what_does_not_fit_are_timed_alone(run):
    record, _ = run("-n", "8", "-K", "0", "-Q", "300", "-d", "16")
    assert "direct" not in record["results"][0]["ways"]
    record, _ = run(*SIZES, "--max-gib", "0", "--features", "clusters")
    assert "direct" not in record["results"][0]["ways"]
    assert "snclr_mm" in record["results"][0]["ways"]


def test_unequal_ranks(run, capsys):
    with pytest.raises(SystemExit):
        run("-n", "8", "-N", "20")
    assert "-N 20 must be a multiple of -n 8" in capsys.readouterr().err


def test_an_interrupted_run_keeps_its_rows(run, monkeypatch, tmp_path):
    original = benchmark_loss.compare

    def compare(size, args):
        if size["N"] == 24:
            raise KeyboardInterrupt
        return original(size, args)

    monkeypatch.setattr(benchmark_loss, "compare", compare)
    with pytest.raises(KeyboardInterrupt):
        run(*SIZES)
    record = json.loads((tmp_path / "loss.json").read_text())
    assert [row["N"] for row in record["results"]] == [8]
    assert [file.name for file in tmp_path.iterdir()] == ["loss.json"]
