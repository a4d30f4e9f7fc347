"""Do the annotations of a detector's or segmentor's data fit its model?"""

import json
import logging
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.fileio import exists, get_text
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model

from snclr_mm.datasets import single_datasets

#: Heads that have the data set's classes; others may have less or more.
HEADS = re.compile(r"(^|\.)(bbox_head|mask_head|decode_head)(\.\d+)?$")
MAPS_READ = 16  # of a segmentation data set, evenly spread


def check_annotations(runner: Runner, stages: Sequence[str]) -> None:
    """Check what MMDetection and MMSegmentation pass over in silence.

    MMDetection leaves out boxes outside their image and objects whose class it does not
    know, and numbers classes in the order of the file, not of ``classes``. The main
    process reads COCO files once more, and ``MAPS_READ`` of the label maps.

    Args:
        runner (Runner): Its dataloaders and loops are built if they are not yet. With
            another default scope than mmdet or mmseg nothing happens.
        stages (Sequence[str]): Of train, val and test.

    Raises:
        ValueError: Naming the file, what is wrong with it, and the config key.
    """
    if runner.cfg.get("default_scope") not in ("mmdet", "mmseg"):
        return
    for stage in stages:
        if getattr(runner, f"_{stage}_loop") is None:
            continue
        loader = _build_loop(runner, stage).dataloader
        for key, dataset in single_datasets(
            loader.dataset, f"{stage}_dataloader.dataset"
        ):
            if "thing_classes" in dataset.metainfo:
                continue  # panoptic: classes are more than the boxes'
            classes = dataset.metainfo.get("classes", ())
            _check_heads(get_ori_model(runner.model), classes, key)
            if not is_main_process():
                continue
            if hasattr(dataset, "label_map"):
                _check_maps(dataset, classes, key)
            elif str(dataset.ann_file).endswith(".json"):
                text = get_text(dataset.ann_file, backend_args=dataset.backend_args)
                content = json.loads(text)
                if stage != "test" or "annotations" in content:  # as COCO's test-dev
                    check_coco(content, dataset.ann_file, classes, key)
            else:
                _check_found(dataset, classes, key)


def _build_loop(runner: Runner, stage: str) -> Any:
    try:
        return getattr(runner, f"{stage}_loop")
    except ValueError as error:
        if "need at least one array" not in str(error):
            raise
        raise ValueError(
            f"{stage}_dataloader.dataset, or a part of it, is empty: no image is found "
            "with its ann_file, data_prefix and img_suffix."
        ) from error


def check_coco(content: dict, path: str, classes: Sequence[str], key: str) -> None:
    """Check boxes and classes of an annotation file in COCO's format.

    Args:
        content (dict): Of the file.
        path (str): The file, for messages.
        classes (Sequence[str]): That the data set is to have, in order.
        key (str): The data set's config key, for messages.

    Raises:
        ValueError: If a class is not in the file or stands in another order there, if a
            box does not overlap its image, if a size, box or id is impossible, or if an
            image is not below the data set's folder. Of boxes that stick out by more
            than a pixel the log warns.
    """
    try:
        _check_coco_values(content, path, key)
        names = [category["name"] for category in content["categories"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{key}: {path} is not in COCO's format: {error!r}.") from None
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ValueError(
            f"{key}: {path} has no class {unknown[0]!r} ({len(unknown)} of "
            f"{len(classes)} classes are not in it; it has {_some(names)}). Set "
            f"{key}.metainfo.classes, and num_classes of the model's heads."
        )
    ordered = [name for name in names if name in classes]
    if ordered != list(classes):
        raise ValueError(
            f"{key}: MMDetection numbers classes as {path} does, but "
            f"{key}.metainfo.classes has another order. Use {_some(ordered)}."
        )
    sizes = {
        image["id"]: (image["width"], image["height"]) for image in content["images"]
    }
    annotations = content.get("annotations")
    if not annotations:
        raise ValueError(f"{key}: {path} has no annotations.")
    boxes = np.array([a["bbox"] for a in annotations], dtype=float).reshape(-1, 4)
    size = np.array([sizes[a["image_id"]] for a in annotations], dtype=float)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    outside = ((high <= 0) | (low >= size)).any(axis=1)
    outside &= (boxes[:, 2:] > 0).all(axis=1)  # COCO has a few boxes without area
    if outside.any():
        first = annotations[int(outside.argmax())]
        raise ValueError(
            f"{key}: {int(outside.sum())} of {len(boxes)} boxes in {path} are outside "
            f"of their image. The first is annotation {first['id']}: x, y, width, "
            f"height = {first['bbox']} in an image of {sizes[first['image_id']]} "
            "(width, height). Correct or remove them: MMDetection leaves them out. "
            "Left, top, right, bottom is not COCO's format."
        )
    cut = ((low < -1) | (high > size + 1)).any(axis=1)
    if cut.any():
        first = annotations[int(cut.argmax())]
        print_log(
            f"{key}: {int(cut.sum())} of {len(boxes)} boxes in {path} stick out of "
            f"their image by more than a pixel, first annotation {first['id']}: "
            f"{first['bbox']}.",
            logger="current",
            level=logging.WARNING,
        )


def _check_coco_values(content: dict, path: str, key: str) -> None:
    ids = {category["id"] for category in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    for image in images.values():
        name, size = image["file_name"], (image["width"], image["height"])
        if os.path.isabs(name) or ".." in Path(name).parts or "://" in name:
            raise ValueError(
                f"{key}: {path} names the image {name!r}, which is not below "
                f"{key}.data_prefix.img."
            )
        if not all(isinstance(value, int) and value > 0 for value in size):
            raise ValueError(f"{key}: in {path} the size of {name!r} is {size}.")
    for annotation in content.get("annotations", ()):
        problem, box = None, annotation["bbox"]
        if annotation["image_id"] not in images:
            problem = f"has the image_id {annotation['image_id']!r}, and no image has"
        elif annotation["category_id"] not in ids:
            problem = (
                f"has the category_id {annotation['category_id']!r}, unknown there"
            )
        elif len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) < 0:
            problem = f"has the bbox {box}, which is no x, y, width, height"
        if problem:
            raise ValueError(
                f"{key}: in {path} annotation {annotation['id']} {problem}."
            )


def _check_heads(model: Any, classes: Sequence[str], key: str) -> None:
    for name, module in model.named_modules():
        number = getattr(module, "num_classes", None)
        if not HEADS.search(name) or number is None or number == len(classes):
            continue
        raise ValueError(
            f"model.{name}.num_classes={number} does not fit the {len(classes)} "
            f"classes of {key} ({_some(classes)}): set one of model.{name}."
            f"num_classes and {key}.metainfo.classes."
        )


def _check_maps(dataset: Any, classes: Sequence[str], key: str) -> None:
    from mmseg.datasets.transforms import LoadAnnotations

    load = LoadAnnotations(backend_args=dataset.backend_args)
    picked = np.linspace(0, len(dataset) - 1, min(MAPS_READ, len(dataset)))
    for i in picked.round().astype(int):
        info = dataset.get_data_info(int(i))
        path = info.get("seg_map_path")
        if path is None:
            return  # a test set without labels
        if not exists(path, backend_args=dataset.backend_args):
            raise ValueError(
                f"{key}: there is no label map {path}; see {key}.data_prefix."
                f"seg_map_path and seg_map_suffix={dataset.seg_map_suffix!r}."
            )
        labels = set(np.unique(load(info)["gt_seg_map"]).tolist())
        wrong = sorted(labels - {*range(len(classes)), dataset.ignore_index})
        if wrong:
            reduced = " after reduce_zero_label" if dataset.reduce_zero_label else ""
            raise ValueError(
                f"{key}: the label map {path} holds {_some(wrong)}{reduced}, but 0 to "
                f"{len(classes) - 1} are the {len(classes)} classes and "
                f"{dataset.ignore_index} unlabeled pixels. Set {key}.metainfo.classes "
                "(and num_classes of the model's heads), or correct the maps."
            )


def _check_found(dataset: Any, classes: Sequence[str], key: str) -> None:
    if not any(dataset.get_data_info(i)["instances"] for i in range(len(dataset))):
        raise ValueError(
            f"{key}: no object in {dataset.ann_file} is of one of the classes "
            f"{_some(classes)}. Set {key}.metainfo.classes."
        )


def _some(values: Sequence) -> str:
    return ", ".join(map(repr, values[:5])) + (", ..." if len(values) > 5 else "")
