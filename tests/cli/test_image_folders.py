from pathlib import Path

import mmpretrain
import pytest
from helpers.tiny import CONFIG, REPOSITORY
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from snclr_mm.cli import fit_to_images, set_image_folders

STOCK = Path(mmpretrain.__file__).parent / ".mim/configs"
CONFIGS = [
    CONFIG,
    REPOSITORY / "configs/snclr_r50_8xb256.py",
    REPOSITORY / "configs/small_images/snclr_r18_1xb256-gpu-aug-200e_small-images.py",
    STOCK / "byol/byol_resnet50_16xb256-coslr-200e_in1k.py",
    STOCK / "mocov3/mocov3_resnet50_8xb512-amp-coslr-100e_in1k.py",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_reads_a_folder(path, image_folder, monkeypatch):
    monkeypatch.chdir(image_folder.parent)
    cfg = Config.fromfile(path)
    cfg.train_dataloader.dataset.pop("cache_dir", None)
    set_image_folders(cfg, image_folder.name)
    fit_to_images(cfg)
    assert cfg.val_cfg is None
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert dataset.data_root == str(image_folder)
        assert len(dataset) == 48
        views = dataset[0]["inputs"]
        views = views if isinstance(views, list) else [views]
        assert all(len(view) == 3 and view.shape[-1] > 20 for view in views)
    assert cfg.train_dataloader.batch_size <= 48


@pytest.mark.parametrize("inside", [False, True])
def test_files_are_no_rgb_images_as_those_of_cifar(image_folder, inside):
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_resnet-tiny_1xb128_cifar100.py")
    assert cfg.data_preprocessor.to_rgb is False
    if inside:
        cfg.model.data_preprocessor = cfg.pop("data_preprocessor")
    set_image_folders(cfg, str(image_folder))
    preprocessor = (cfg.model if inside else cfg).data_preprocessor
    assert preprocessor.to_rgb is True
    grays = [t for t in preprocessor.transforms[0] if t.type == "RandomGrayscale"]
    assert [tuple(gray.channel_weights) for gray in grays] == [(0.114, 0.587, 0.2989)]


def test_gray_of_the_workers_is_that_of_files_too(image_folder, monkeypatch):
    monkeypatch.setenv("DATASET", "cifar100")
    name = "small_images/snclr_r18_1xb256-200e_small-images.py"
    cfg = Config.fromfile(REPOSITORY / "configs" / name)
    set_image_folders(cfg, str(image_folder))
    views = cfg.train_dataloader.dataset.pipeline[1].transforms
    for view in views:
        (gray,) = [t for t in view if t.type == "RandomGrayscale"]
        assert tuple(gray.channel_weights) == (0.114, 0.587, 0.2989)


def test_labeled_folders_are_evaluated_on(image_folder):
    cfg = Config.fromfile(CONFIGS[3])
    root = str(image_folder)
    set_image_folders(cfg, root, root)
    fit_to_images(cfg)
    bank = DATASETS.build(cfg.val_cfg.bank_dataloader.dataset)
    assert bank.CLASSES == ("china", "flower")
    assert cfg.val_cfg.type == "KNNValLoop" and cfg.test_cfg.type == "KNNTestLoop"
    assert cfg.val_dataloader.dataset.data_root == root


def test_a_config_that_counts_steps_is_not_evaluated_after_each(image_folder):
    name = "configs/small_images/snclr_r18-half_1xb128-1500i_tree-crowns.py"
    cfg = Config.fromfile(REPOSITORY / name)
    set_image_folders(cfg, str(image_folder), str(image_folder))
    assert cfg.train_cfg.get("val_interval", 1000) == 1000  # MMEngine's


def test_bad_folders(image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(CONFIG)
    with pytest.raises(FileNotFoundError, match="--data-root 'no' and --val-data-roo"):
        set_image_folders(cfg, "no", "none")
    (tmp_path / "other/cats").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"sub-folders.*cats, china, flower are in"):
        set_image_folders(cfg, str(image_folder), "other")
    (tmp_path / "flat").mkdir()
    with pytest.raises(ValueError, match="--data train=DIR test=DIR"):
        set_image_folders(cfg, str(tmp_path / "flat"), "flat")
    with pytest.raises(ValueError, match="is for configs that pretrain"):
        set_image_folders(Config(dict(default_scope="mmdet")), str(image_folder))


def test_fewer_images_than_a_batch(image_folder, monkeypatch):
    cfg = Config.fromfile(CONFIG)
    set_image_folders(cfg, str(image_folder))
    cfg.launcher = "pytorch"
    monkeypatch.setenv("WORLD_SIZE", "3")
    notes = fit_to_images(cfg)
    assert cfg.train_dataloader.batch_size == 16
    assert cfg.auto_scale_lr.enable
    assert (cfg.model.head.queue.length, cfg.model.head.num_neighbors) == (48, 6)
    assert [note.split(": ")[0] for note in notes] == [
        "train_dataloader.batch_size 128 -> 16",
        "model.head.queue.length 4096 -> 48",
        "model.head.num_neighbors 30 -> 6",
    ]
    assert fit_to_images(cfg) == []
    other = Config.fromfile(CONFIG)
    assert fit_to_images(other) == []  # only what was asked for
    assert other.train_dataloader.batch_size == 128
