import os
import sys

# Forked ranks cannot use a GPU that this process has looked for, as libraries do when
# they are imported: only `pytest -m gpu` sees the machine's.
if "PYTEST_XDIST_WORKER" not in os.environ and not any("gpu" in a for a in sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Nothing may install itself while tests run (mmengine's get_config would).
os.environ["PIP_NO_INDEX"] = "1"
# Beside another worker: one thread, also in what tests start, and ports of its own.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("PORT", str(29500 + 10 * int(worker.removeprefix("gw"))))

from functools import cache

import numpy as np
import pytest
import torch
import yapf.yapflib.yapf_api
from filelock import FileLock
from helpers.command import SMALL_PICTURES, tool
from helpers.tiny import REPOSITORY
from hypothesis import settings
from mmengine.registry import init_default_scope

import snclr_mm  # noqa: F401

# MMEngine formats a config several times in a run, which takes longer than training.
yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, 0)

# Generated cases of each test that Hypothesis runs, the same in each run. New ones, and
# many: pytest -m hypothesis --hypothesis-profile=thorough
settings.register_profile("short", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("short")

#: Configs that are trained for checkpoints at full width, with an option for each.
PRETRAINING = {
    "resnet50": ("configs/snclr_r50_8xb256.py", "optim_wrapper.optimizer.lr=0.1"),
    "vit-small": (
        "configs/imagenet/snclr_vit-small-p16_8xb512-300e_in1k.py",
        "model.backbone.img_size=32",
    ),
}


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a GPU, and pytest -m gpu")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def reproducible():
    """Fixed seeds, and the scope in which configs name MMPretrain's components."""
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos():
    """Two real photographs, [427, 640, 3] uint8, that scikit-learn ships."""
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


@pytest.fixture(scope="session")
def image_folder(photos, tmp_path_factory):
    """48 real image files, JPEG and PNG: tiles of the photographs in two folders."""
    import mmcv

    root = tmp_path_factory.mktemp("images")
    for name, photo in zip(("china", "flower"), photos, strict=True):
        for i in range(24):
            row, column = divmod(i, 6)
            tile = photo[row * 100 : row * 100 + 96, column * 100 : column * 100 + 96]
            suffix = "jpg" if i % 2 else "png"
            mmcv.imwrite(tile[..., ::-1].copy(), str(root / name / f"{i}.{suffix}"))
    return root


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory):
    """Real images in Fashion-MNIST's file format: scikit-learn's handwritten digits.

    1,437 training and 360 test images of 10 classes, enlarged from 8 x 8 to 28 x 28.
    """
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    root = tmp_path_factory.mktemp("digits")
    images = np.stack(
        [cv2.resize((img * 15.9).astype(np.uint8), (28, 28)) for img in digits.images]
    )
    for name, part in (("train", slice(0, 1437)), ("t10k", slice(1437, None))):
        for kind, data in (
            ("images-idx3", images[part]),
            ("labels-idx1", digits.target[part].astype(np.uint8)),
        ):
            # Magic number 0x08 (bytes) and the dimensions, big-endian.
            header = np.array([0x800 + data.ndim, *data.shape], dtype=">i4")
            (root / f"{name}-{kind}-ubyte").write_bytes(
                header.tobytes() + data.tobytes()
            )
    return root


@pytest.fixture(scope="session")
def pretraining_checkpoint(image_folder, tmp_path_factory):
    """name -> what tools/train.py wrote after two steps, at full width.

    Workers share it: it takes long to train, and is large.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    @cache
    def train(name):
        config, option = PRETRAINING[name]
        work_dir = shared / f"pretraining-{name}"
        with FileLock(f"{work_dir}.lock"):
            if not (work_dir / "epoch_1.pth").exists():
                work_dir.mkdir(exist_ok=True)
                tool(
                    "train.py",
                    REPOSITORY / config,
                    "--no-validate",
                    "--work-dir",
                    work_dir,
                    "--cfg-options",
                    f"train_dataloader.dataset.data_root={image_folder}",
                    "train_dataloader.dataset.indices=16",
                    "train_dataloader.batch_size=8",
                    *SMALL_PICTURES,
                    option,
                    cwd=work_dir,
                )
        return work_dir / "epoch_1.pth"

    return train
