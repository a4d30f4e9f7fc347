import json

import benchmark_loss
import pytest
import torch

SIZES = ["-n", "8", "-N", "8", "16", "-K", "3", "-Q", "300", "-d", "16"]


@pytest.fixture
def run(tmp_path, capsys):
    def run(*options):
        out = tmp_path / "loss.json"
        args = ["--device", "cpu", "--rounds", "2", "--out", str(out), *options]
        benchmark_loss.main(args)
        return json.loads(out.read_text()), capsys.readouterr().out

    return run


@pytest.mark.parametrize("projection", ["identity", "linear"])
def test_all_ways_agree_and_are_timed(run, projection):
    record, printed = run(*SIZES, "--projection", projection, "--variants")
    assert record["torch"] == torch.__version__
    assert [row["N"] for row in record["results"]] == [8, 16]
    for row in record["results"]:
        assert {"authors", "direct", "snclr_mm"} <= set(row["ways"])
        errors = row["largest_error"]
        assert errors.pop("loss: half") < 0.02
        assert max(errors.values()) < 1e-4
        assert {"search: half", "loss: plain"} <= set(errors)
        assert row["ways"]["snclr_mm"]["ratio"] == 1
        assert all(way["ms"] > 0 for way in row["ways"].values())
        assert row["ways"]["direct"]["peak_mib"] > 0
    assert "authors" in printed


def test_a_wrong_loss_stops_it(run, monkeypatch):
    original = benchmark_loss.Ours.loss
    monkeypatch.setattr(benchmark_loss.Ours, "loss", lambda self: 1.01 * original(self))
    with pytest.raises(SystemExit, match="snclr_mm: .* differ from"):
        run(*SIZES)


def test_infonce_and_what_does_not_fit_are_timed_alone(run):
    record, _ = run("-n", "8", "-K", "0", "-Q", "300", "-d", "16")
    assert "direct" not in record["results"][0]["ways"]
    record, _ = run(*SIZES, "--max-gib", "0", "--features", "clusters")
    assert "direct" not in record["results"][0]["ways"]
    assert "snclr_mm" in record["results"][0]["ways"]
