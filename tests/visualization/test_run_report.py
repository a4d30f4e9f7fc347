import base64
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import load_tool
from helpers.pages import read_data
from helpers.tiny import CONFIG, build_runner, tiny_config
from PIL import Image

from snclr_mm.cli import machine
from snclr_mm.visualization.run_report import read_environment

report = load_tool("visualization/report_run.py")
EVIL = "</script><script>alert(1)</script>"


def records(first, last, epoch=1, **others):
    return [
        {"loss": 10 / i, "time": 0.5, "lr": 0.1, "iter": i, "step": i, "epoch": epoch}
        | others
        for i in range(first, last + 1)
    ]


@pytest.fixture
def interrupted(tmp_path):
    """A run that was resumed, and killed while it wrote a line."""
    folder = tmp_path / "run"
    logs = [
        [*records(1, 4), {"knn/top1": 50.0, "time": 9.0, "step": 1}, *records(5, 7, 2)],
        [*records(5, 6, 2, loss=math.nan), {"knn/top1": 40.0, "step": 2}],
    ]
    for i, lines in enumerate(logs):
        log = folder / f"2026010{i}/vis_data/scalars.json"
        log.parent.mkdir(parents=True)
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log.write_text(log.read_text() + '{"loss": 1')
    (folder / "mine.py").write_text(
        "train_cfg = dict(max_epochs=3)\nresume = True\n"
        f"model = dict(type='SNCLR', note={EVIL!r})\n"
        "bad = print('never run')\n"
    )
    (folder / "epoch_2_val.json").write_text(json.dumps({"summary": {"linear": 61.5}}))
    (folder / "damaged.json").write_text("{")
    return folder


def test_interrupted_run(interrupted, tmp_path, capsys):
    page = report.main([str(interrupted), f"--base={CONFIG}"])
    assert page == interrupted / "report.html"
    assert "never run" not in capsys.readouterr().out
    assert page.read_text().count("<script") == 3
    data = read_data(page)
    (run,) = data["runs"]
    # Iteration 7 was not repeated yet after the resume.
    expected = [10, 5, 10 / 3, 2.5, None, None]
    assert run["curves"]["loss"] == [[i + 1, y] for i, y in enumerate(expected)]
    assert run["curves"]["knn/top1"] == [[4, 50.0], [6, 40.0]]
    assert run["curves"]["time"] == [[i, 0.5] for i in range(1, 7)]
    progress = dict(run["progress"])
    assert progress["state"].startswith("not finished")
    assert progress["logged up to"] == "iteration 6, epoch 2 of 3"
    assert progress["time in training steps"] == "0.1 minutes"
    notes = " ".join(run["notes"])
    assert "1 line(s) of" in notes and "loss is not finite from iteration 5" in notes
    assert "damaged.json is not a table of results" in notes
    assert run["evaluations"] == [
        ["validation, last", "knn/top1", 40.0],
        ["validation, greatest", "knn/top1", 50.0],
        ["epoch_2_val.json", "linear", 61.5],
    ]
    assert run["command"].endswith(
        f"{interrupted}_again --cfg-options resume=False load_from=None"
    )
    rows = {row[0]: row[1:] for row in data["settings"]["rows"]}
    assert rows["train_cfg.max_epochs"] == ["20", "3"]
    assert rows["model.note"] == [None, repr(EVIL)]
    assert "model.type" not in rows

    for file in interrupted.rglob("scalars.json"):
        file.write_text("")
    (run,) = read_data(report.main([str(interrupted)]))["runs"]
    assert dict(run["progress"])["logged up to"] == "nothing was logged yet"
    assert "--base CONFIG" in " ".join(run["notes"])


def test_two_real_runs(digits_root, tmp_path):
    """What the Runner of today writes is what the report reads."""
    folders = []
    for lr in (0.01, 0.02):
        folders.append(tmp_path / f"run_{lr}")
        cfg = tiny_config(
            digits_root,
            folders[-1],
            optim_wrapper__optimizer__lr=lr,
            train_cfg__max_epochs=1,
            custom_hooks=[
                dict(type="NeighborQueueHook"),
                dict(type="NeighborImagesHook", num_images=30),
                dict(type="RunReportHook", priority="LOWEST"),
            ],
        )
        build_runner(cfg).train()
    (alone,) = read_data(folders[0] / "report.html")["runs"]  # of the hook
    page = report.main([*map(str, folders), f"--out={tmp_path / 'both.html'}"])
    assert page.stat().st_size < 5e6
    data = read_data(page)
    assert data["runs"][0]["curves"] == alone["curves"]
    for run in data["runs"]:
        assert dict(run["progress"])["state"] == "finished"
        assert [x for x, _ in run["curves"]["loss"]] == [1, 2, 3, 4]
        assert {"lr", "time", "epoch"} < run["curves"].keys()
        assert run["environment"]["seed"] == "0" and "PyTorch" in run["environment"]
        assert run["notes"] == []
        ((iteration, picture),) = run["pictures"]
        assert iteration == 4
        shown = Image.open(io.BytesIO(base64.b64decode(picture)))
        (file,) = Path(run["name"]).rglob("vis_image/neighbors_4.png")
        drawn = Image.open(file).convert("RGB").resize(shown.size)
        assert 500 < max(shown.size) <= 1000
        difference = np.asarray(shown).astype(int) - np.asarray(drawn)
        assert np.abs(difference).mean() < 4 < np.asarray(drawn).std()
    base, *names = data["settings"]["columns"]
    assert base == f"configs/{CONFIG.name}" and names == list(map(str, folders))
    rows = {row[0]: row[1:] for row in data["settings"]["rows"]}
    assert rows["optim_wrapper.optimizer.lr"] == ["0.01", "0.01", "0.02"]
    assert rows["train_cfg.max_epochs"] == ["20", "1", "1"]
    assert "model.temperature" not in rows and "work_dir" not in rows


def test_seed_and_config_are_those_of_the_training(digits_root, tmp_path):
    """Not those of a resumed run's start, or of a test afterwards."""
    options = dict(randomness=dict(_delete_=True, seed=None))
    build_runner(tiny_config(digits_root, tmp_path / "run", **options)).train()
    again = tiny_config(digits_root, tmp_path / "run", resume=True, **options)
    again.train_cfg.max_epochs = 3
    build_runner(again).train()
    saved = torch.load(tmp_path / "run/epoch_3.pth", weights_only=False)
    (config,) = (tmp_path / "run").glob("*.py")
    text = config.read_text()
    again.load_from = "epoch_3.pth"
    with machine.build_runner(again, training=False) as runner:
        assert runner.seed != saved["meta"]["seed"]
    assert config.read_text() == text
    (run,) = read_data(report.main([str(tmp_path / "run")]))["runs"]
    assert run["environment"]["seed"] == str(saved["meta"]["seed"])
    assert f"randomness.seed={saved['meta']['seed']}" in run["command"]


def test_seed_of_a_run_that_was_started_anew(tmp_path):
    """In the work_dir of an earlier one."""
    for i, end in enumerate(("", "", "resumed epoch: 1")):
        folder = tmp_path / f"2026010{i}"
        (folder / "vis_data").mkdir(parents=True)
        (folder / "vis_data/scalars.json").touch()
        text = f"System environment:\n    seed: {i}\n----\n{end}"
        (folder / "a.log").write_text(text)
    assert read_environment(tmp_path) == {"seed": "1"}


def test_long_curves_are_thinned(tmp_path):
    log = tmp_path / "run/20260101/vis_data/scalars.json"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps(r) + "\n" for r in records(1, 5000)))
    page = report.main([str(tmp_path / "run")])
    (run,) = read_data(page)["runs"]
    assert 300 < len(run["curves"]["loss"]) <= 401
    assert run["curves"]["loss"][-1] == [5000, 10 / 5000]
    assert run["command"] == ""
    assert dict(run["progress"])["time in training steps"] == "41.7 minutes"


def test_pictures_of_a_long_run(interrupted):
    """Those of what was repeated are left out, and damaged ones are named."""
    for i, iterations in enumerate((range(1, 9), range(5, 61))):
        folder = interrupted / f"2026010{i}/vis_data/vis_image"
        folder.mkdir()
        for iteration in iterations:
            color = (0, 200, 0) if i else (200, 0, 0)
            file = folder / f"neighbors_{iteration}.png"
            Image.new("RGB", (30, 20), color).save(file)
    (folder / "neighbors_5.png").unlink()  # the first run has one
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    whole = file.read_bytes()
    (folder / "neighbors_evil.png").write_text("none")
    for damaged in (whole[:40], whole[:140_000] + b"\0" * 100_000):
        file.write_bytes(damaged)
        (run,) = read_data(report.main([str(interrupted)]))["runs"]
        assert [x for x, _ in run["pictures"]] == [1, 10, 19, 27, 35, 43, 52]
        for iteration, picture in run["pictures"]:
            image = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
            assert (image[..., 1].mean() > 150) == (iteration >= 5)
        assert "neighbors_60.png is no picture" in " ".join(run["notes"])


def test_bad_input(interrupted, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ([tmp_path / "empty"], "empty is not the work_dir of a training.*scalars.json"),
        ([tmp_path / "lost"], "no work_dir '.*lost'"),
        ([interrupted, "--base=lost.py"], "no config 'lost.py'"),
    ]:
        with pytest.raises(SystemExit, match=message):
            report.main([*map(str, arguments), f"--out={tmp_path / 'no.html'}"])
    (interrupted / "mine.py").write_text("train_cfg = dict(")
    with pytest.raises(SystemExit, match="mine.py is not a config"):
        report.main([str(interrupted)])
    assert not (tmp_path / "no.html").exists()
