import hashlib

import mmcv
import numpy as np
import pytest
from helpers.command import load_tool
from helpers.tiny import REPOSITORY
from mmengine.config import Config
from mmpretrain.registry import DATASETS

prepare_stl10 = load_tool("data/prepare_stl10.py")
CONFIG = REPOSITORY / "configs/small_images/snclr_r18_1xb256-200e_small-images.py"


@pytest.fixture
def binary(photos, tmp_path, monkeypatch):
    """Tiles of two photographs in STL-10's own format, taken for the published."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("china\nflower\n")
    tiles = [photo[:96, i : i + 96] for i in (0, 96, 192) for photo in photos]
    for split in ("unlabeled", "train", "test"):
        # [n, channel, column, row]
        np.stack(tiles).transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")
        np.array([1, 2] * 3, np.uint8).tofile(folder / f"{split}_y.bin")
    (folder / "unlabeled_y.bin").unlink()
    for part in ("train_list", "test_list"):
        files = [folder / name for name, _ in getattr(prepare_stl10.STL10, part)]
        md5 = [[f.name, hashlib.md5(f.read_bytes()).hexdigest()] for f in files]
        monkeypatch.setattr(prepare_stl10.STL10, part, md5)
    return folder, tiles


def test_the_config_reads_the_folders(binary, tmp_path, monkeypatch, capsys):
    folder, tiles = binary
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATASET", "stl10")
    prepare_stl10.main([str(folder)])
    assert "STL-10 is in data/stl10" in capsys.readouterr().out
    cfg = Config.fromfile(CONFIG)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    loaded = [mmcv.imread(train.get_data_info(i)["img_path"]) for i in range(6)]
    assert len(train) == 6
    assert all((a[..., ::-1] == b).all() for a, b in zip(loaded, tiles, strict=True))
    for loader in (cfg.val_dataloader, cfg.val_cfg.bank_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert dataset.CLASSES == ("china", "flower")
        info = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert [i["gt_label"] for i in info] == [0, 0, 0, 1, 1, 1]
        first = mmcv.imread(info[3]["img_path"])
        assert (first[..., ::-1] == tiles[1]).all()


@pytest.mark.parametrize("name", ["test_y.bin", "train_X.bin", "unlabeled_X.bin"])
def test_bad_files(name, binary, tmp_path):
    folder, _ = binary
    with pytest.raises(SystemExit, match="none must be the folder stl10_binary"):
        prepare_stl10.main([str(tmp_path / "other/none"), str(tmp_path / "out")])
    (folder / name).write_bytes(b"\x01\x03")
    with pytest.raises(SystemExit, match="MD5 is checked.*unpack"):
        prepare_stl10.main([str(folder), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()  # refused before anything is written
