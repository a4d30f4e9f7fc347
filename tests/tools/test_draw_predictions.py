import json

import cv2
import numpy as np
import pytest
import torch
from helpers.command import call, load_tool, tool
from helpers.tiny import REPOSITORY

TOOL = "draw_predictions.py"
draw_predictions = load_tool(TOOL)
CONFIGS = {
    "masks": "mmdetection/garment-scenes/"
    "mask-rcnn_r18-half_fpn_1xb8-400_garment-scenes.py",
    "labels": "mmsegmentation/garment-scenes/"
    "fcn_r18-half-d8_1xb8-400_garment-scenes.py",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_pictures(kind, garment_scenes, tmp_path, monkeypatch):
    """Of a network that knows nothing: its boxes of score 0, or some label each."""
    from mmengine.config import Config
    from mmengine.registry import MODELS

    config = REPOSITORY / "configs/benchmarks" / CONFIGS[kind]
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    options = ["--images", 3, "--columns", 2, "--enlarge", 2, "--work-dir", tmp_path]
    out = tmp_path / "a.png"
    command = [TOOL, config, tmp_path / "a.pth", out, *options]
    if kind == "masks":
        tool(*command, cwd=garment_scenes.parents[1])
    else:
        monkeypatch.chdir(garment_scenes.parents[1])
        call(*command)
    sheet = cv2.imread(str(out))
    assert sheet.shape == (18 + 2 * 256 + 6, 4 * 256 + 6, 3)
    first = cv2.imread(str(garment_scenes / "val/00000.png"))
    first = first.repeat(2, 0).repeat(2, 1)
    truth = sheet[18 : 18 + 256, :256]  # below the captions
    assert not np.array_equal(truth, first)  # something is drawn on it
    if kind == "masks":  # away from the boxes it is the picture
        annotations = json.loads((garment_scenes / "annotations/val.json").read_text())
        away = np.ones((256, 256), bool)
        for a in annotations["annotations"]:
            if a["image_id"] == 1:
                x, y, w, h = (2 * value for value in a["bbox"])
                away[max(y - 4, 0) : y + h + 4, max(x - 4, 0) : x + w + 4] = False
        # Rendering changes colors a little, and labels of thin boxes stick out.
        same = np.abs(truth.astype(int) - first).max(axis=2) <= 8
        assert away.mean() > 0.05 and same[away].mean() > 0.95
        assert same[~away].mean() < 0.5


def test_another_checkpoint(garment_scenes, scenes_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(garment_scenes.parents[1])
    config = REPOSITORY / "configs/benchmarks" / CONFIGS["labels"]
    command = [TOOL, config, scenes_checkpoint, "a.png", "--work-dir", tmp_path]
    problem = "not in the checkpoint (.|\n)*Is it of another config"
    with pytest.raises(SystemExit, match=problem):
        call(*command)


def test_tile():
    pictures = [np.full((2, 3, 3), i, np.uint8) for i in range(3)]
    sheet = draw_predictions.tile(pictures, 2)
    assert sheet.shape == (10, 12, 3)
    assert (sheet[:2, :3] == 0).all() and (sheet[:2, 9:] == 1).all()
    assert (sheet[8:, :3] == 2).all() and (sheet[8:, 9:] == 255).all()


def test_repeat():
    assert (
        draw_predictions.repeat(torch.tensor([[1, 2]]), 2).tolist()
        == [[1, 1, 2, 2]] * 2
    )


def test_bad_arguments(capsys):
    with pytest.raises(SystemExit):
        draw_predictions.parse_args(["a.py", "a.pth", "a.png", "--images", "0"])
    assert "--images 0: must be at least 1" in capsys.readouterr().err
