import json

import pytest
import torch
from helpers.command import load_tool

benchmark_data = load_tool("benchmarks/benchmark_data.py")


def test_small_run(tmp_path, capsys):
    out = tmp_path / "result.json"
    size = ["--images=4", "--batch=4", "--repeats=1", "--workers=1", "--batches=1"]
    record = benchmark_data.main([*size, "--step", "500", "900.5", f"--out={out}"])
    assert json.loads(out.read_text()) == record
    printed = capsys.readouterr().out
    assert [case["name"] for case in record["results"]] == [
        "ImageNet, 224 px",
        "Tiny-ImageNet, 64 px",
        "Fashion-MNIST, 28 px",
    ]
    for case in record["results"]:
        ours, theirs = case["gpu-aug"], case["MMCV"]
        assert ours["worker"] > 1.5 * theirs["worker"]
        for parts in (ours, theirs):
            assert parts["both"] < min(parts["worker"], parts["device"])
            assert parts["loader"] > 0
            for step, cores in parts["cores"].items():
                assert (cores - 1) * parts["worker"] < float(step)
                assert cores * parts["worker"] >= float(step)
            assert f"| {parts['worker']:.4g} " in printed
    assert record["torch"] == torch.__version__
    assert record["threads"] == 1


def test_empty_folder(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no JPEG files \(--photos\)"):
        benchmark_data.main([f"--photos={tmp_path}", f"--out={tmp_path / 'r'}"])
