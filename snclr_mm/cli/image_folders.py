"""Folders of images, given on the command line, in place of a config's data."""

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmpretrain.registry import DATASETS

from snclr_mm.datasets.dataset_configs import (
    expect_bgr,
    find_test_pipeline,
    holds_rgb,
    single_datasets,
    with_load_image,
)

from .dataloaders import dataloaders

#: Share of a user's images that may be unreadable.
SKIP_LIMIT = 0.25
#: Number of processes, by launcher.
WORLD_SIZE = {"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}
WORLD_SIZE["mpi"] = "OMPI_COMM_WORLD_SIZE"


def set_image_folders(cfg: Config, train: str, test: str | None = None) -> None:
    """Let any pretraining config read image folders; its pipelines stay.

    Args:
        cfg (Config): Changed in place.
        train (str): The images to train on, in any sub-folders.
        test (str, optional): Labeled images, a sub-folder per class, for kNN; those of
            ``train`` then need sub-folders of the same names. Defaults to None: no
            evaluation while training.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If the config is not of pretraining, or the classes differ.
    """
    folders = {"--data-root": train, "--val-data-root": test}
    missing = [
        f"{option} {folder!r}"
        for option, folder in folders.items()
        if folder is not None and not Path(folder).expanduser().is_dir()
    ]
    if missing:
        raise FileNotFoundError(
            f"{' and '.join(missing)}: there is no such folder (working directory: "
            f"{Path.cwd()})."
        )
    if cfg.get("default_scope") in ("mmdet", "mmseg") or not cfg.get(
        "train_dataloader"
    ):
        raise ValueError(
            "--data-root is for configs that pretrain: the images of others need "
            "annotations (see docs/downstream.md)."
        )
    pipeline = find_test_pipeline(cfg)
    loader = cfg.train_dataloader
    if holds_rgb(loader.dataset):
        expect_bgr(cfg)
    _, old = next(single_datasets(loader.dataset, "train_dataloader.dataset"))
    kept = {key: old[key] for key in ("cache_dir",) if old.get(key)}
    loader.dataset = _folder(
        train, with_load_image(old.pipeline), skip_limit=SKIP_LIMIT, **kept
    )
    plain = dict(
        batch_size=loader.get("batch_size", 64),
        num_workers=loader.get("num_workers", 0),
        persistent_workers=False,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
    )
    if test is None:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.test_cfg, cfg.test_evaluator = {}, []
        cfg.test_dataloader = dict(plain, dataset=_folder(train, pipeline))
        return
    _check_classes(train, test)
    options = dict(with_label=True, skip_limit=SKIP_LIMIT)
    bank = dict(plain, dataset=_folder(train, pipeline, **options))
    bank["sampler"] = dict(plain["sampler"], round_up=False)
    for stage in ("val", "test"):
        cfg[f"{stage}_dataloader"] = dict(
            plain, dataset=_folder(test, pipeline, **options)
        )
        loop = {
            key: value
            for key, value in (cfg.get(f"{stage}_cfg") or {}).items()
            if key in ("k", "temperature")
        }
        kind = f"KNN{stage.title()}Loop"
        cfg[f"{stage}_cfg"] = dict(type=kind, **loop, bank_dataloader=bank)
        cfg[f"{stage}_evaluator"] = dict(type="Accuracy", topk=1, prefix="knn")


def fit_to_images(cfg: Config) -> list[str]:
    """Fit batch, queue and k to a folder with fewer images than the config expects.

    Only where :func:`set_image_folders` was called. The learning rate follows the batch
    by ``auto_scale_lr``, if the config has it.

    Args:
        cfg (Config): Changed in place.

    Returns:
        list[str]: What was changed, for the log.
    """
    dataset = (cfg.get("train_dataloader") or {}).get("dataset") or {}
    if dataset.get("type") != "ImageFolder" or "skip_limit" not in dataset:
        return []
    found = DATASETS.build({**dataset, "pipeline": [], "cache_dir": None})
    images, loader, notes = len(found), cfg.train_dataloader, []
    if images < 2:
        raise ValueError(f"{dataset.data_root!r} holds {images} image: too few.")
    ranks = int(os.environ.get(WORLD_SIZE.get(cfg.get("launcher"), ""), 1))
    share = -(-images // ranks)
    if loader.batch_size > share:
        notes.append(
            f"train_dataloader.batch_size {loader.batch_size} -> {share}: a batch is "
            f"not larger than the {images} images"
        )
        loader.batch_size = share
        if cfg.get("auto_scale_lr"):
            cfg.auto_scale_lr.enable = True
    workers = max(1, len(os.sched_getaffinity(0)) // ranks)
    for other in dataloaders(cfg).values():
        other.num_workers = min(other.get("num_workers", 0), workers)
    head = cfg.model.get("head") or {}
    if "queue" in head and head.queue.length > images:
        notes.append(
            f"model.head.queue.length {head.queue.length} -> {images}: a longer queue "
            "would hold the same images again"
        )
        head.queue.length = images
        most = max(1, images // 8)
        if head.get("num_neighbors", 0) > most:
            notes.append(f"model.head.num_neighbors {head.num_neighbors} -> {most}")
            head.num_neighbors = most
    for stage in ("val", "test"):
        loop = cfg.get(f"{stage}_cfg") or {}
        if "bank_dataloader" in loop and loop.get("k", 20) > images:
            loop.k = images
    return notes


def _folder(root: str, pipeline: list, **options) -> ConfigDict:
    root = os.path.abspath(Path(root).expanduser())
    return ConfigDict(type="ImageFolder", data_root=root, pipeline=pipeline, **options)


def _check_classes(train: str, test: str) -> None:
    names = [
        {
            path.name
            for path in Path(root).expanduser().iterdir()
            if path.is_dir() and not path.name.startswith(".")
        }
        for root in (train, test)
    ]
    if not names[1] or names[0] != names[1]:
        different = sorted(names[0] ^ names[1])
        raise ValueError(
            f"{train!r} and {test!r} need the same sub-folders, one per class, but "
            f"{', '.join(different[:5]) or 'there are none'}"
            f"{', ...' * (len(different) > 5)}"
            f"{' are in one of them only' if different else ''}. Without labels leave "
            "--val-data-root out; labeled folders can be evaluated later: "
            "tools/evaluate.py CONFIG CHECKPOINT --data train=DIR test=DIR."
        )
