"""Real scenes in the layouts of COCO, VOC, Cityscapes and ADE20K; small configs."""

import json
from pathlib import Path
from xml.sax.saxutils import escape

import mmcv
import pytest
import torch
from mmengine.config import Config

#: Numbers that are made at most this large, wherever the key occurs.
AT_MOST = {
    "batch_size": 2,
    "num_workers": 0,
    "max_epochs": 1,
    "max_iters": 1,
    "val_interval": 1,
    "nms_pre": 64,
    "max_per_img": 16,
    "num": 8,  # of the samplers
    "fc_out_channels": 16,
    "channels": 16,
    "times": 1,
}
PIXELS = ("scale", "scales", "size", "crop_size", "img_size", "stride", "patch_grid")
SHARE = 8  # by which pictures shrink


def require_downstream() -> None:
    """Skip where MMDetection, MMSegmentation or mmcv's ops are missing."""
    for library in ("mmdet", "mmseg", "mmcv.ops"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    from mmcv.ops import get_compiling_cuda_version

    if torch.cuda.is_available() and get_compiling_cuda_version() == "not available":
        pytest.skip("mmcv's ops are built for CPUs only", allow_module_level=True)


def lay_out(scenes: Path, root: Path, dataset: str, classes: tuple) -> None:
    """Write the scenes of tools/data/prepare_garment_scenes.py as another data set.

    Args:
        scenes (Path): They have 10 classes, which take the names of the first.
        root (Path): The config's ``data_root``.
        dataset (str): coco, voc, cityscapes or ade20k.
        classes (tuple): The data set's.
    """
    for split in ("train", "val"):
        content = json.loads((scenes / f"annotations/{split}.json").read_text())
        {"coco": _coco, "voc": _voc, "cityscapes": _cityscapes, "ade20k": _ade20k}[
            dataset
        ](scenes, root, split, content, classes)


def _coco(scenes, root, split, content, classes):
    content["categories"] = [{"id": i, "name": c} for i, c in enumerate(classes, 1)]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    (root / f"{split}2017").symlink_to(scenes / split)


def _voc(scenes, root, split, content, classes):
    for year in ("VOC2007", "VOC2012"):
        lines = []
        for image in content["images"]:
            name = f"{split}_{image['id']}"
            lines.append(name)
            picture = mmcv.imread(str(scenes / split / image["file_name"]))
            mmcv.imwrite(picture, str(root / year / f"JPEGImages/{name}.jpg"))
            objects = ""
            for a in content["annotations"]:
                if a["image_id"] == image["id"]:
                    x, y, w, h = a["bbox"]
                    objects += (
                        f"<object><name>{escape(classes[a['category_id'] - 1])}</name>"
                        f"<bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                    )
            size = f"<width>{image['width']}</width><height>{image['height']}</height>"
            xml = f"<annotation><size>{size}</size>{objects}</annotation>"
            _write(root / year / f"Annotations/{name}.xml", xml)
            labels = scenes / "semantic" / split / image["file_name"]
            for kind in ("SegmentationClass", "SegmentationClassAug"):
                _write(root / year / f"{kind}/{name}.png", labels.read_bytes())
        text = "\n".join(lines)
        lists = {"train": ("train", "aug", "trainval"), "val": ("val", "test")}[split]
        for name in lists:
            _write(root / year / f"ImageSets/Main/{name}.txt", text)
            _write(root / year / f"ImageSets/Segmentation/{name}.txt", text)


def _cityscapes(scenes, root, split, content, classes):
    for image in content["images"]:
        name, file = f"a/{image['id']}", image["file_name"]
        picture = (scenes / split / file).read_bytes()
        labels = (scenes / "semantic" / split / file).read_bytes()
        _write(root / f"leftImg8bit/{split}/{name}_leftImg8bit.png", picture)
        _write(root / f"gtFine/{split}/{name}_gtFine_labelTrainIds.png", labels)


def _ade20k(scenes, root, split, content, classes):
    folder = {"train": "training", "val": "validation"}[split]
    for image in content["images"]:
        name, file = image["id"], image["file_name"]
        picture = mmcv.imread(str(scenes / split / file))
        mmcv.imwrite(picture, str(root / f"images/{folder}/{name}.jpg"))
        labels = (scenes / "semantic" / split / file).read_bytes()
        _write(root / f"annotations/{folder}/{name}.png", labels)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def shrink(cfg: Config, root: Path, work_dir: Path) -> Config:
    """One step of two small pictures, then evaluation; the networks stay as they are.

    Args:
        cfg (Config): Changed in place.
        root (Path): Takes the place of its ``data_root``.
        work_dir (Path): For logs.
    """
    cfg.work_dir = str(work_dir)
    cfg.launcher = "none"
    cfg.randomness = dict(seed=0)
    _shrink(cfg._cfg_dict, cfg.data_root, str(root))
    cfg.default_hooks.checkpoint = None
    return cfg


def _shrink(node, old_root: str, root: str) -> None:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if isinstance(value, str):
            if value.startswith(old_root):
                node[key] = f"{root}/{value.removeprefix(old_root)}"
        elif key == "persistent_workers":
            node[key] = False
        elif key == "score_thr":
            node[key] = 0.0  # a network of one step is sure of nothing
        elif key in AT_MOST and isinstance(value, int):
            node[key] = min(value, AT_MOST[key])
        elif key in PIXELS:
            node[key] = _smaller(value)
        elif isinstance(value, dict | list):
            _shrink(value, old_root, root)


def _smaller(value):
    if isinstance(value, list | tuple):
        return type(value)(_smaller(v) for v in value)
    if isinstance(value, int) and value > 100:
        return round(value / SHARE / 16) * 16
    return value
