import pytest
from helpers.tiny import CONFIG
from mmengine.config import Config

from snclr_mm.cli import check_data_roots, set_dataloader_defaults


def test_dataloader_defaults():
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=2),
            val_dataloader=dict(num_workers=0, persistent_workers=True),
        )
    )
    set_dataloader_defaults(cfg, pin_memory=None, persistent_workers=None)
    assert cfg.train_dataloader.pin_memory
    assert cfg.train_dataloader.persistent_workers
    assert cfg.train_dataloader.collate_fn.type == "default_collate"
    assert not cfg.val_dataloader.persistent_workers
    set_dataloader_defaults(cfg, pin_memory=False, persistent_workers=False)
    assert not cfg.train_dataloader.pin_memory
    assert not cfg.train_dataloader.persistent_workers


@pytest.mark.parametrize("scope", ["mmpretrain", "snclr_mm", "mmdet", "mmseg"])
def test_only_detection_and_segmentation_collate_lists(scope):
    cfg = Config(dict(train_dataloader=dict(num_workers=0), default_scope=scope))
    set_dataloader_defaults(cfg)
    assert ("collate_fn" in cfg.train_dataloader) == (
        scope in ("mmpretrain", "snclr_mm")
    )


def test_missing_data_folders(tmp_path):
    cfg = Config.fromfile(CONFIG)
    with pytest.raises(
        FileNotFoundError,
        match=r"train_dataloader\.dataset\.data_root='data/.*--cfg-options train_data.*"
        r"prepare_fashion_mnist",
    ):
        cfg.train_dataloader.dataset.data_root = "data/none"
        check_data_roots(cfg)
    cfg.train_dataloader.dataset.data_root = str(tmp_path)
    cfg.val_dataloader.dataset.data_root = str(tmp_path)
    cfg.val_cfg.bank_dataloader.dataset.data_root = "none"
    with pytest.raises(FileNotFoundError, match=r"val_cfg\.bank_dataloader.*--no-vali"):
        check_data_roots(cfg)
    check_data_roots(cfg, stages=["train"])


def test_missing_annotations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(
                    type="RepeatDataset",
                    dataset=dict(
                        data_root=str(tmp_path),
                        ann_file="a.json",
                        data_prefix=dict(img="train"),
                    ),
                )
            )
        )
    )
    key = r"train_dataloader\.dataset\.dataset\."
    with pytest.raises(
        FileNotFoundError, match=rf"{key}ann_file='a.json' .* in data_root '{tmp_path}'"
    ):
        check_data_roots(cfg)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=rf"{key}data_prefix\.img='train' does"):
        check_data_roots(cfg)
    (tmp_path / "train").mkdir()
    check_data_roots(cfg)
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.data_root = "s3://bucket/coco/"
    check_data_roots(cfg)
    dataset.data_root = "data/tree-crowns/"
    with pytest.raises(
        FileNotFoundError,
        match=rf"{key}data_root='data/tree-crowns/' does not exist \(working.*"
        r"prepare_tree_crowns\.py data/tree-crowns$",
    ):
        check_data_roots(cfg)
