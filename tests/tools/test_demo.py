import json

import cv2
import pytest
from helpers.command import load_tool, run
from helpers.tiny import REPOSITORY

demo = load_tool("demo.py")


def test_on_real_digits(digits_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "prepare_data", lambda root: None)
    monkeypatch.setattr(demo.SETTINGS, "draws", 1)
    monkeypatch.chdir(tmp_path)
    summary = demo.main(
        [
            "--work-dir=out",
            f"--data-root={digits_root}",
            "--images=400",
            "--epochs=2",
            "--cfg-options",
            "train_dataloader.num_workers=0",
            "model.backbone.base_channels=8",
            "model.backbone.stem_channels=8",
            "model.neck.in_channels=32",
            "model.head.queue.length=512",
            "default_hooks.logger.interval=1",
        ]
    )
    assert json.loads((tmp_path / "out/results.json").read_text()) == summary
    for protocol in ("knn", "linear", "linear_10_per_class"):
        assert set(summary[protocol]) == {"snclr", "random", "pixels"}
        assert all(20 < value <= 100 for value in summary[protocol].values())
    # Pixels do well on digits, and are the same in each run.
    assert summary["knn"]["pixels"] > 85
    for name in ("training.png", "neighbors.png"):
        picture = cv2.imread(str(tmp_path / "out" / name))
        assert picture.shape[0] > 300 and picture.std() > 10
    printed = capsys.readouterr().out
    assert f"{summary['knn']['snclr']:10.2f}" in printed
    assert "[5/5]" in printed


def test_few_evaluations_on_the_way():
    for epochs, expected in ((30, 3), (50, 3), (2, 2), (1, 1)):
        cfg = demo.build_config(demo.parse_args([f"--epochs={epochs}"]))
        assert -(-epochs // cfg.train_cfg.val_interval) == expected
        assert cfg.custom_hooks[0].start_epoch == epochs // 5


def test_help_sets_nothing_up(tmp_path):
    """With no Python at all: every option is named."""
    script = REPOSITORY / "tools/demo.sh"
    command = ["env", "PATH=/usr/bin:/bin", "PYTHON=none", script, "--help"]
    text = run(*command, cwd=tmp_path)
    for option in vars(demo.parse_args([])):
        assert f"[--{option.replace('_', '-')}" in text


def test_data_that_cannot_be_had(tmp_path, capfd):
    (tmp_path / "train-images-idx3-ubyte").touch()
    for name in ("train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").touch()
    with pytest.raises(SystemExit) as error:
        demo.main([f"--data-root={tmp_path}"])
    assert error.value.code == 1
    assert "is not the published file" in capfd.readouterr().err


def test_bad_options(capsys):
    for option in ("--images=0", "--images=60001", "--epochs=0"):
        with pytest.raises(SystemExit):
            demo.main([option])
        assert option.split("=")[0] in capsys.readouterr().err
