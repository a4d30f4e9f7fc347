import json

from helpers.command import load_tool

benchmark_methods = load_tool("benchmarks/benchmark_methods.py")


def test_a_row_per_method_and_direction(tmp_path, capsys):
    out = tmp_path / "result.json"
    options = "--device=cpu --methods ressl snclr --batch=4 --iterations=2 -k=3"
    record = benchmark_methods.main([*options.split(), f"--out={out}"])
    assert json.loads(out.read_text()) == record
    names = [row["name"] for row in record["results"]]
    assert names == ["infonce", "ressl", "ressl, one direction", "snclr"]
    for row in record["results"]:
        assert row["ms"] > 0 and row["ratio"] > 0 and row["peak_mb"] > 0
    assert record["results"][0]["ratio"] == 1
    table = capsys.readouterr().out.strip().splitlines()
    assert len(table) == 2 + len(names)  # and no log of the initialization
