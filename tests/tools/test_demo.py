import json

import cv2
import demo
import pytest


def test_on_real_digits(digits_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "prepare", lambda root: "digits")
    summary = demo.main(
        [
            f"--work-dir={tmp_path}",
            f"--data-root={digits_root}",
            "--images=700",
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
    assert json.loads((tmp_path / "results.json").read_text()) == summary
    for protocol in ("knn", "linear", "linear_10_per_class"):
        assert set(summary[protocol]) == {"snclr", "random", "pixels"}
        assert all(20 < value <= 100 for value in summary[protocol].values())
    # Pixels do well on digits, and are the same in each run.
    assert summary["knn"]["pixels"] > 90
    for name in ("training.png", "neighbors.png"):
        picture = cv2.imread(str(tmp_path / name))
        assert picture.shape[0] > 300 and picture.std() > 10
    printed = capsys.readouterr().out
    assert f"{summary['knn']['snclr']:10.2f}" in printed
    assert "[5/5]" in printed


def test_bad_options(capsys):
    for option in ("--images=0", "--images=60001", "--epochs=0"):
        with pytest.raises(SystemExit):
            demo.main([option])
        assert option.split("=")[0] in capsys.readouterr().err
