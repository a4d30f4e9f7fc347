import pytest
from mmengine.config import Config

from snclr_mm.datasets import find_test_pipeline, single_datasets


def test_single_datasets():
    a, b = dict(type="A"), dict(type="B")
    nested = dict(dataset=dict(datasets=[a, dict(dataset=b)]))
    assert list(single_datasets(nested, "x")) == [
        ("x.dataset.datasets.0", a),
        ("x.dataset.datasets.1.dataset", b),
    ]


def test_pipeline_of_the_test_data():
    load = dict(type="LoadImageFromFile", ignore_empty=True, color_type="grayscale")
    pipeline = [load, dict(type="PackInputs")]
    cfg = Config(dict(val_dataloader=dict(dataset=dict(pipeline=pipeline))))
    assert find_test_pipeline(cfg) == [
        dict(type="LoadImage", color_type="grayscale"),
        dict(type="PackInputs"),
    ]
    assert cfg.val_dataloader.dataset.pipeline[0].type == "LoadImageFromFile"


def test_pipeline_after_the_training_crops():
    crop = dict(type="RandomResizedCrop", scale=28)
    views = dict(type="MultiView", num_views=2, transforms=[[crop]])
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[views]))))
    load, edge, center, pack = find_test_pipeline(cfg)
    assert (load["type"], pack["type"]) == ("LoadImage", "PackInputs")
    assert edge["scale"] == 32 and center["crop_size"] == 28
    whole = Config(
        dict(
            train_dataloader=dict(dataset=dict(pipeline=[])),
            data_preprocessor=dict(transforms=[[dict(crop, scale=14)]]),
        )
    )
    assert find_test_pipeline(whole)[1]["scale"] == 16
    with pytest.raises(ValueError, match="no RandomResizedCrop"):
        find_test_pipeline(Config(dict(train_dataloader=dict(dataset=dict()))))
