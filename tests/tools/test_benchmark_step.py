import json

import pytest
import torch
from helpers.command import load_tool

from snclr_mm.models import neighbor_head

benchmark_step = load_tool("benchmarks/benchmark_step.py")

SMALL = "--device=cpu --batch=4 --image-size=32 --iterations=2 --queue-length=32"


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Models of the same kinds, narrow enough for tests."""
    original = benchmark_step.make_configs

    def make_configs(args):
        model, *optimizers = original(args)
        if args.backbone == "vit-small":
            model["backbone"]["arch"] = dict(
                embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=48
            )
            model["neck"]["in_channels"] = 48
        else:
            model["backbone"]["base_channels"] = 16
            model["neck"]["in_channels"] = 128
        for part in (model["neck"], model["head"]["predictor"]):
            part["hid_channels"] = 64
        return model, *optimizers

    monkeypatch.setattr(benchmark_step, "make_configs", make_configs)


def test_small_step(tmp_path, capsys):
    out = tmp_path / "result.json"
    record = benchmark_step.main(
        [*SMALL.split(), "--neighbors", "0", "3", f"--out={out}"]
    )
    assert json.loads(out.read_text()) == record
    assert record["torch"] == torch.__version__
    names = [row["name"] for row in record["results"]]
    assert names == [
        "MoCoV3",
        "SNCLR, K = 0",
        "SNCLR, K = 3",
        "K = 3, ForeachLARS",
        "and channels last",
    ]
    assert max(record["difference_from_mocov3_without_neighbors"].values()) < 1e-4
    printed = capsys.readouterr().out
    for row in record["results"]:
        low, high = row["quartiles_ms"]
        assert 0 < low <= row["ms"] <= high
        assert f"| {row['ms']:.4g} " in printed
        assert len(row["losses"]) == 2 + benchmark_step.CHECKED
        assert all(loss > 0 for loss in row["losses"])
    stock, without, soft, foreach, _ = (row["losses"] for row in record["results"])
    assert without == pytest.approx(stock, rel=1e-4)
    assert foreach == pytest.approx(soft, rel=1e-4)
    assert soft[0] != pytest.approx(stock[0], rel=1e-3)  # neighbors are used


def test_each_format_has_its_own_cudnn_setting():
    for setting, last in (
        ("channels_last", "and channels last, cudnn_benchmark"),
        ("contiguous", "and channels last"),
    ):
        args = benchmark_step.parse_args(
            [*SMALL.split(), "--neighbors=3", f"--cudnn-benchmark={setting}"]
        )
        steps = benchmark_step.build_steps(args)
        *others, (name, step) = steps.items()
        assert name == last
        assert step.cudnn_benchmark == (setting == "channels_last")
        assert all(s.cudnn_benchmark != step.cudnn_benchmark for _, s in others)


def test_vit(tmp_path):
    options = ["--backbone=vit-small", "--neighbors=2"]
    out = tmp_path / "result.json"
    record = benchmark_step.main([*SMALL.split(), *options, f"--out={out}"])
    names = [row["name"] for row in record["results"]]
    assert names == ["MoCoV3", "SNCLR, K = 2", "K = 2, fused AdamW"]
    assert "difference_from_mocov3_without_neighbors" not in record


def test_an_interrupted_run_keeps_its_rounds(tmp_path, monkeypatch):
    original, calls = benchmark_step.Step.run, []

    def run(step, views):
        calls.append(step)
        rounds = benchmark_step.CHECKED + 1
        if len(calls) > rounds * len(set(calls)):
            raise KeyboardInterrupt
        original(step, views)

    monkeypatch.setattr(benchmark_step.Step, "run", run)
    out = tmp_path / "result.json"
    with pytest.raises(KeyboardInterrupt):
        benchmark_step.main([*SMALL.split(), "--neighbors=3", f"--out={out}"])
    rows = json.loads(out.read_text())["results"]
    assert len(rows) == len(set(calls))
    assert all(len(row["losses"]) == benchmark_step.CHECKED + 1 for row in rows)
    assert all(row["ms"] > 0 for row in rows)


def test_another_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        neighbor_head,
        "info_nce",
        lambda query, *args, **kwargs: query.sum(),
    )
    with pytest.raises(SystemExit, match="K = 0 is not MoCoV3"):
        benchmark_step.main(
            [*SMALL.split(), "--neighbors=0", f"--out={tmp_path / 'a'}"]
        )


@pytest.mark.parametrize(
    "options, message",
    [
        (["--precision=fp16"], "needs --device cuda"),
        (["--neighbors=33"], "between 0 and --queue-length 32"),
        (["--batch=1"], "at least 2"),
    ],
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit):
        benchmark_step.main([*SMALL.split(), *options])
    assert message in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    options = "--device=cuda --backbone=resnet18 --batch=8 --image-size=64 "
    options += "--iterations=2 --queue-length=64 --neighbors 0 5"
    record = benchmark_step.main([*options.split(), f"--out={tmp_path / 'a.json'}"])
    assert all(row["memory_gib"] > 0 for row in record["results"])
