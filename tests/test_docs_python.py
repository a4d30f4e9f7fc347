"""docs/python.md is run, line by line, on a small network of the recipe."""

import re
from pathlib import Path

import mmcv
import pytest
import torch
from helpers.tiny import REPOSITORY
from mmengine.config import Config
from mmpretrain.registry import MODELS

from snclr_mm.checkpoints.saved_model import load_model

BLOCKS = re.findall(
    r"^```python\n(.+?)^```", (REPOSITORY / "docs/python.md").read_text(), re.M | re.S
)


def small_config():
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r18_1xb128_image-folder.py")
    cfg.model.neck.hid_channels = cfg.model.head.predictor.hid_channels = 16
    cfg.model.head.queue.length = 64
    return cfg


def save(path, cfg, text=None):
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    meta = {"cfg": cfg.pretty_text if text is None else text}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    return model


@pytest.fixture
def here(image_folder, tmp_path, monkeypatch):
    """A folder with photos, the checkpoint of the page, and its config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SIZE", "32")
    (tmp_path / "photos").symlink_to(image_folder)
    cfg = small_config()
    (tmp_path / "configs").mkdir()
    cfg.dump(tmp_path / "configs/snclr_r18_1xb128_image-folder.py")
    save(tmp_path / "work_dirs/snclr_r18_1xb128_image-folder/epoch_200.pth", cfg)
    return tmp_path


def test_every_line(here):
    space = {}
    for block in BLOCKS:
        exec(block, space)
    features, paths = space["features"], space["paths"]
    assert features.shape == (48, 512) and features.dtype == torch.float32
    assert paths == sorted(map(str, Path("photos").glob("*/*")))
    assert features.norm(dim=1).allclose(torch.ones(48))
    assert space["nearest"][0] == paths[0]
    # The same image gives the same features, however it is given.
    for part in ("one", "other"):
        assert space[part].allclose(features[:2], atol=1e-5), part
    assert space["same"].equal(features)
    assert not features[0].allclose(features[1], atol=1e-3)
    pooled = space["maps"].mean(dim=(-2, -1))
    assert torch.cosine_similarity(pooled, features[0], dim=0) > 0.9999
    # The definition: normalised input, backbone, mean over the map.
    model = space["model"]
    image = mmcv.imrescale(mmcv.imread(paths[0]), (36, 36))
    image = torch.from_numpy(image[2:34, 2:34, ::-1].copy()).permute(2, 0, 1)[None]
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    with torch.no_grad():
        expected = model.backbone((image - mean) / std)[-1].mean(dim=(2, 3))[0]
    assert torch.cosine_similarity(expected, features[0], dim=0) > 0.9999


@pytest.mark.parametrize(
    "change, problem",
    [
        ('type="ResNet"', 'type="subprocess.Popen"'),
        ("depth=18", "depth=print(18)"),
        ('type="SNCLR"', 'type="os"'),
    ],
)
def test_the_config_in_a_checkpoint_is_data(here, change, problem, monkeypatch):
    called = []
    monkeypatch.setattr("builtins.print", lambda *args: called.append(args))
    monkeypatch.setattr("subprocess.Popen", lambda **args: called.append(args))
    cfg = small_config()
    text = cfg.pretty_text.replace("'", '"')
    assert change in text
    save(here / "bad.pth", cfg, text.replace(change, problem))
    with pytest.raises(ValueError, match="no config that can be read as data"):
        load_model(here / "bad.pth")
    save(here / "none.pth", cfg, text="")
    with pytest.raises(ValueError, match=r"none\.pth holds no config.*give the file"):
        load_model(here / "none.pth")
    assert not called
