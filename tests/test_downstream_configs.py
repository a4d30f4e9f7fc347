"""configs/benchmarks/mmdetection and mmsegmentation: from a pretraining checkpoint."""

import operator
import re
import shlex
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.command import load_tool
from helpers.configs import cases, load, save_backbone
from helpers.downstream import lay_out, require_downstream, shrink
from helpers.tiny import REPOSITORY, build_runner
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader

from snclr_mm.cli import (
    check_annotations,
    check_data_roots,
    check_pretrained,
    set_pretrained,
)

require_downstream()
mmdet = pytest.importorskip("mmdet")

garments = load_tool("data/prepare_garment_scenes.py")
CASES = [
    case
    for library in ("mmdetection", "mmsegmentation")
    for case in cases(f"benchmarks/{library}")
]
PUBLISHED = [case for case in CASES if "r18-half" not in case[0]]
VIT_SMALL = dict(embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)
#: Words in the names of those that are trained: each library, ResNet and ViT. The small
#: Mask R-CNN is in tests/tools/test_downstream.py.
TRAINED = ("faster-rcnn_r50-c4", "voc12aug", "upernet_vit")
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


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """name -> a checkpoint of the pretraining recipe's backbone, written once."""
    recipes = {
        "resnet50": "snclr_r50_8xb256.py",
        "vit-small": "imagenet/snclr_vit-small-p16_8xb512-300e_in1k.py",
    }
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def get(name):
        backbone = load(recipes[name]).model.backbone
        if name == "vit-small":
            backbone.img_size = 32  # to be interpolated
        return save_backbone(backbone, root / f"{name}.pth")

    return get


class Start(Hook):
    """Keeps the model that training starts from."""

    def before_train(self, runner):
        self.state = deepcopy(runner.model.state_dict())


@pytest.mark.parametrize("path, choice", PUBLISHED)
def test_every_tensor_arrives(path, choice, roots, checkpoints, tmp_path, monkeypatch):
    """And the data fit; those of TRAINED then take a step and are evaluated."""
    name = "vit-small" if "vit" in path else "resnet50"
    checkpoint = checkpoints(name)
    cfg = load(path, choice)
    (folder,) = (
        d for d in ("coco", "voc", "cityscapes", "ade20k") if d in path + choice
    )
    root = roots(folder)
    if "voc12aug" in choice:
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
    trains = any(word in path + choice for word in TRAINED)
    start = Start()
    if trains:
        runner.register_hook(start)
        runner.train()
    else:
        runner.model.init_weights()
        start.before_train(runner)

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
    if not trains:
        return
    trained = runner.model.state_dict()
    assert any(not torch.equal(trained[key], start.state[key]) for key in trained)
    scalars = runner.message_hub.log_scalars
    metrics = [key for key in scalars if key.endswith(("mAP", "mIoU"))]
    assert metrics and all(scalars[key].current() >= 0 for key in metrics)
    loss = scalars["train/loss"].current()
    assert 0 < loss < 100


def test_classes_are_those_of_the_scenes():
    for path, _ in CASES:
        if "garment-scenes" in path:
            classes = load(path).train_dataloader.dataset.metainfo.classes
            assert tuple(classes)[-10:] == garments.CLASSES
            assert len(classes) == (11 if "mmsegmentation" in path else 10)


def test_options_of_the_2x_schedule():
    """docs/downstream.md; MMDetection's own schedule_2x."""
    text = (REPOSITORY / "docs/downstream.md").read_text()
    options = re.search(r"--cfg-options (train_cfg[^`]+)`", text).group(1)
    cfg = load("benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py")
    pairs = (option.split("=") for option in shlex.split(options))
    cfg.merge_from_dict({k: DictAction._parse_iterable(v) for k, v in pairs})
    (stock,) = Path(mmdet.__path__[0]).glob(".mim/configs/_base_/schedules/*2x.py")
    stock = Config.fromfile(stock)
    assert cfg.train_cfg.max_epochs == stock.train_cfg.max_epochs
    for ours, theirs in zip(cfg.param_scheduler, stock.param_scheduler, strict=True):
        assert {k: v for k, v in ours.items() if k != "_scope_"} == theirs
