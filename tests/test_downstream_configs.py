"""configs/benchmarks/mmdetection and mmsegmentation: from a pretraining checkpoint."""

import operator
from copy import deepcopy

import pytest
import torch
from helpers.command import load_tool
from helpers.downstream import lay_out, require_downstream, shrink
from helpers.tiny import REPOSITORY, build_runner
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader

from snclr_mm.cli import (
    check_annotations,
    check_data_roots,
    check_pretrained,
    set_pretrained,
)

require_downstream()

garments = load_tool("data/prepare_garment_scenes.py")
FOLDER = REPOSITORY / "configs/benchmarks"
CONFIGS = sorted(
    path
    for library in ("mmdetection", "mmsegmentation")
    for path in (FOLDER / library).rglob("*.py")
)
PUBLISHED = [path for path in CONFIGS if "r18-half" not in path.name]
VIT_SMALL = dict(embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)
SIZES = {"resnet50": 318, "vit-small": 150}


@pytest.fixture(scope="module")
def scenes(digits_root, tmp_path_factory):
    """Real digits as garments, 10 classes."""
    root = tmp_path_factory.mktemp("downstream") / "scenes"
    garments.prepare(root, digits_root, train=8, val=4, unlabeled=0)
    return root


@pytest.fixture(scope="module")
def roots(scenes):
    """dataset -> its folder, filled when first asked for."""
    from mmdet.datasets import CocoDataset, VOCDataset

    classes = {"coco": CocoDataset, "voc": VOCDataset}

    def get(dataset):
        root = scenes.parent / dataset
        if not root.exists():
            names = getattr(classes.get(dataset), "METAINFO", {}).get("classes", ())
            lay_out(scenes, root, dataset, names)
        return root

    return get


class Start(Hook):
    """Keeps the model that training starts from."""

    def before_train(self, runner):
        self.state = deepcopy(runner.model.state_dict())


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_trains_and_predicts(path, roots, pretraining_checkpoint, tmp_path):
    """One step and one evaluation; before them, every tensor has arrived."""
    name = "vit-small" if "vit" in path.name else "resnet50"
    checkpoint = pretraining_checkpoint(name)
    cfg = Config.fromfile(path)
    folder = path.parent.name.removesuffix("0712").removesuffix("12aug")
    root = roots(folder)
    if "voc12aug" in path.name:
        root = root / "VOC2012"
    shrink(cfg, root, tmp_path)
    if name == "vit-small":
        cfg.model.backbone.arch = VIT_SMALL
        cfg.model.neck.in_channels = [384] * 4
    check_data_roots(cfg)
    set_pretrained(cfg.model, str(checkpoint))
    runner = build_runner(cfg)
    check_pretrained(runner.model)
    check_annotations(runner, ["train", "val"])
    for head in ("decode_head", "bbox_head", "roi_head.bbox_head"):
        module = operator.attrgetter(head)
        if hasattr(runner.model, head.split(".")[0]):
            module = module(runner.model)
            right, module.num_classes = module.num_classes, 3
            with pytest.raises(ValueError, match=rf"model\.{head}\.num_classes=3 does"):
                check_annotations(runner, ["train"])
            module.num_classes = right
    start = Start()
    runner.register_hook(start)
    runner.train()

    expected = CheckpointLoader.load_checkpoint(str(checkpoint))["state_dict"]
    found = {
        part + key.removeprefix(prefix): value
        for prefix, part in (("backbone.", ""), ("roi_head.shared_head.", ""))
        for key, value in start.state.items()
        if key.startswith(prefix) and not key.startswith(prefix + "norm.")
    }
    assert len(found) == SIZES[name]
    for key, value in found.items():
        if key == "pos_embed":  # interpolated to the image size
            assert value.shape == (1, 1 + 4 * 4, 384)
            continue
        assert torch.equal(value, expected[f"backbone.{key}"]), key
    trained = runner.model.state_dict()
    assert any(not torch.equal(trained[key], start.state[key]) for key in trained)
    scalars = runner.message_hub.log_scalars
    metrics = [key for key in scalars if key.endswith(("mAP", "mIoU"))]
    assert metrics and all(scalars[key].current() >= 0 for key in metrics)
    loss = scalars["train/loss"].current()
    assert 0 < loss < 100


def test_classes_are_those_of_the_scenes():
    for path in CONFIGS:
        if path.parent.name == "garment-scenes":
            classes = Config.fromfile(path).train_dataloader.dataset.metainfo.classes
            assert tuple(classes)[-10:] == garments.CLASSES
            assert len(classes) == (11 if "mmsegmentation" in str(path) else 10)
