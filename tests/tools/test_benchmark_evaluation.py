import json

import pytest
from helpers.command import load_tool

benchmark_evaluation = load_tool("benchmarks/benchmark_evaluation.py")


def test_small_features(tmp_path, capsys, monkeypatch):
    out = tmp_path / "result.json"
    size = ["--train=900", "--test=1000", "--width=24", "--classes=4", f"--out={out}"]
    record = benchmark_evaluation.main(size)
    assert json.loads(out.read_text()) == record
    printed = capsys.readouterr().out
    for row in record["results"]:
        assert 30 < row["accuracy"] < 95  # of 4 classes
        assert row["accuracy"] == pytest.approx(row["sklearn_accuracy"], abs=0.31)
        assert row["ratio"] == row["sklearn_seconds"] / row["seconds"] > 0
        assert f"| {row['accuracy']:.4g} " in printed
    monkeypatch.setattr(
        benchmark_evaluation,
        "weighted_knn",
        lambda queries, *bank: bank[1].new_zeros(len(queries)),
    )
    with pytest.raises(SystemExit, match="Accuracies differ"):
        benchmark_evaluation.main(size)
