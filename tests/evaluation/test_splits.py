import pytest
from helpers.tiny import CONFIG
from mmengine.config import Config

from snclr_mm.evaluation import build_splits


@pytest.fixture
def cfg(digits_root):
    cfg = Config.fromfile(CONFIG)
    # Serializing is for workers; it collects garbage, which is slow.
    options = dict(data_root=str(digits_root), serialize_data=False)
    for stage in ("val", "test"):
        cfg[f"{stage}_dataloader"].dataset.update(options)
        cfg[f"{stage}_cfg"].bank_dataloader.dataset.update(options)
    return cfg


def labels(split):
    batches = [batch["data_samples"] for batch in split.dataloader]
    return [int(sample.gt_label) for samples in batches for sample in samples]


def all_labels(split):
    return [int(split.dataset.get_data_info(i)["gt_label"]) for i in range(1437)]


def test_bank_and_queries(cfg):
    train, test = build_splits(cfg)
    assert (train.name, len(train.rows)) == ("val_cfg.bank_dataloader", 1437)
    assert (test.name, len(test.rows)) == ("val_dataloader", 360)
    assert labels(train) == all_labels(train)
    assert train.num_classes is None
    train, test = build_splits(cfg, split="test", train_images=100)
    assert (train.name, test.name) == ("test_cfg.bank_dataloader", "test_dataloader")
    assert labels(train) == all_labels(train)[:100]


def test_holdout(cfg):
    cfg.val_dataloader = None  # not needed
    train, test = build_splits(cfg, holdout=37)
    assert labels(train) == all_labels(train)[:1400]
    assert labels(test) == all_labels(train)[1400:]
    train, test = build_splits(cfg, holdout=37, train_images=100)
    assert (train.rows, test.rows) == (range(100), range(1400, 1437))


def test_images_that_come_class_by_class(cfg, image_folder):
    """48 images of a folder, the first 24 of one class and the others of another."""
    bank = cfg.val_cfg.bank_dataloader
    pipeline = [dict(type="LoadImage"), dict(type="PackInputs")]
    bank.dataset = dict(
        type="ImageFolder",
        data_root=str(image_folder),
        with_label=True,
        pipeline=pipeline,
    )
    train, test = build_splits(cfg, holdout=12, train_images=24)
    assert not {*train.rows} & {*test.rows}
    assert {*labels(train)} == {*labels(test)} == {0, 1}
    assert (len(labels(train)), len(labels(test))) == (24, 12)
    again, _ = build_splits(cfg, holdout=12)
    assert again.rows[:24] == train.rows


def test_config_without_bank(cfg, digits_root):
    """As stock MMPretrain configs are: training images, unaugmented."""
    cfg.val_cfg = dict()
    cfg.train_dataloader.dataset.data_root = str(digits_root)
    train, _ = build_splits(cfg)
    assert train.name == "train_dataloader"
    assert labels(train) == all_labels(train)
    batch = next(iter(train.dataloader))
    assert batch["inputs"].shape[1:] == (3, 28, 28)  # one view, not two
    assert "MultiView" in str(cfg.train_dataloader.dataset.pipeline)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(holdout=1437), "--holdout 1437: must be between 1 and 1436; .*1437"),
        (dict(holdout=0), "--holdout 0"),
        (dict(train_images=1438), "--train-images 1438: .*between 1 and 1437"),
        (
            dict(train_images=1400, holdout=38),
            "--train-images 1400: .*between 1 and 1399; .*1437 images, 38 held out",
        ),
    ],
)
def test_more_than_there_is(cfg, options, message):
    with pytest.raises(ValueError, match=message):
        build_splits(cfg, **options)


def test_missing_data(cfg):
    cfg.val_dataloader = None
    with pytest.raises(ValueError, match="no val_dataloader"):
        build_splits(cfg)
    cfg.val_cfg = None
    with pytest.raises(ValueError, match=r"neither val_cfg\.bank_dataloader nor"):
        build_splits(cfg, holdout=10)
