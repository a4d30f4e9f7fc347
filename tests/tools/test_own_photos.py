"""Somebody new, with a folder of photographs and of much else."""

import re
import shutil
import sys

import cv2
import pytest
import torch
from helpers.command import call, run, tool
from helpers.photos import READABLE, write_mixed_folder
from helpers.tiny import REPOSITORY

CONFIG = "configs/snclr_r18_1xb128_image-folder.py"
#: What nobody should see who has done nothing wrong.
FRIGHTENING = "Traceback|CUDA|requires_grad|Deprecat|deprecat|UserWarning|[Cc]orrupt"
SMALL = ["model.neck.hid_channels=16", "model.head.predictor.hid_channels=16"]
SMALL += ["train_cfg.max_epochs=2"]
WORK_DIR = f"work_dirs/{CONFIG[8:-3]}"


@pytest.fixture
def here(photos, tmp_path, monkeypatch):
    """Another working directory than the repository, beside the photos."""
    write_mixed_folder(tmp_path / "my photos, 2024 (ä)", photos)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SIZE", "32")
    return tmp_path / "here"


ROOT = "../my photos, 2024 (ä)"


def check_screen(screen):
    before = screen[: screen.index(" loss: ")].splitlines()
    assert len(before) < 40, screen
    assert not re.search(FRIGHTENING, screen), screen
    assert f"{READABLE} images, shorter side 64 pixels" in screen
    for part in ("skipped", "truncated or damaged", "batch", "learning rate", "log"):
        assert part in screen
    assert "that it rises here is expected" in screen
    assert "eta" in screen


def test_trains_shows_and_exports(here, capfd):
    config = REPOSITORY / CONFIG
    options = ["--data-root", ROOT, "--cfg-options", *SMALL]
    call("train.py", config, *options, "train_dataloader.num_workers=0")
    check_screen("".join(capfd.readouterr()))
    checkpoint = here / WORK_DIR / "epoch_2.pth"
    (log,) = (here / WORK_DIR).glob("*/*.log")
    for part in ("System environment", "SoftNeighborHead", "Hooks will be executed"):
        assert part in log.read_text()

    picture = call("show_neighbors.py", checkpoint, "--data-root", ROOT, "--saliency")
    image = cv2.imread(str(picture))
    assert image.shape[0] > 1000 and image.std() > 10
    call("convert_checkpoint.py", checkpoint, "backbone.pth", "--to", "timm")
    screen = "".join(capfd.readouterr())
    assert not re.search(FRIGHTENING, screen)
    line = screen.rpartition("Use it as: ")[2].strip()
    space = {}
    exec(line, space)
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert torch.equal(space["model"].conv1.weight, state["backbone.conv1.weight"])

    # Again with labels, and the finished run once more.
    root = here / "labeled"
    for name in ("china", "flower"):
        shutil.copytree(f"{ROOT}/{name}", root / name)
    folders = ["--data-root", root, "--val-data-root", root]
    options = [*SMALL, "train_cfg.max_epochs=1", "train_dataloader.num_workers=0"]
    call("train.py", config, *folders, "--work-dir=w", "--cfg-options", *options)
    assert "knn/top1" in capfd.readouterr().out
    folders = ["--data", f"train={root}", f"test={root}"]
    options = ["--protocols", "knn", "--knn-k", "1", "--cfg-options", *SMALL[:2]]
    record = call("evaluate.py", config, checkpoint, *folders, *options)
    assert record["summary"] == {"knn": 100.0}  # each image is its own neighbor
    assert record["test"]["dataloader"] == str(root)
    own = ["--data-root", ROOT, "--resume", "--cfg-options", *SMALL]
    own.append("train_dataloader.num_workers=0")
    capfd.readouterr()
    call("train.py", config, *own)
    assert "nothing is left to train" in capfd.readouterr().out


def test_mistakes_say_what_to_do(here, image_folder, capfd):
    config = REPOSITORY / CONFIG
    with pytest.raises(FileNotFoundError, match="--data-root 'lost': there is no such"):
        call("train.py", config, "--data-root", "lost")
    with pytest.raises(FileNotFoundError, match=r"data/images.*--data-root DIR"):
        call("train.py", config)
    with pytest.raises(ValueError, match="no val_dataloader.*--data train=DIR test"):
        call("evaluate.py", config, "random")
    gpu_aug = REPOSITORY / "configs/snclr_resnet-tiny_1xb128-gpu-aug_fashion-mnist.py"
    options = ["--resume", "--data-root", ROOT, "--cfg-options", *SMALL[2:]]
    options += ["train_dataloader.num_workers=0", "train_dataloader.batch_size=4"]
    cv2.imwrite(f"{ROOT}/flower/large.png", cv2.imread(f"{ROOT}/flower/日本 0.png")[:9])
    with pytest.raises(ValueError, match=r"different sizes.*dict\(type='Resize'"):
        call("train.py", gpu_aug, *options, "train_dataloader.batch_size=25")
    assert "to resume from: training starts" in capfd.readouterr().out
    options = [f"train_dataloader.dataset.data_root={image_folder}", *SMALL]
    options += ["train_dataloader.num_workers=0", "train_dataloader.batch_size=49"]
    with pytest.raises(ValueError, match=r"48 images.*batch_size=49.*drop_last"):
        call("train.py", config, "--cfg-options", *options)


@pytest.mark.slow
def test_the_commands_as_they_are_typed(here):
    train = [CONFIG, "--data-root", ROOT, "--cfg-options", "train_cfg.max_epochs=2"]
    check_screen(tool("train.py", *train, cwd=here))
    checkpoint = f"{WORK_DIR}/epoch_2.pth"
    tool("show_neighbors.py", checkpoint, "--data-root", ROOT, cwd=here)
    assert (here / WORK_DIR / "neighbors.png").exists()
    convert = [checkpoint, "backbone.pth", "--to", "timm"]
    screen = tool("convert_checkpoint.py", *convert, cwd=here)
    line = screen.rpartition("Use it as: ")[2].strip()
    run(sys.executable, "-c", line, cwd=here)
