import hashlib
import os
from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset, default_collate
from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader, Subset


class Split(NamedTuple):
    """Images to extract features of: some rows of a dataset, in order."""

    name: str  # the dataloader's config key, for messages
    config: dict  # of the dataset
    dataset: BaseDataset
    rows: Sequence[int]
    dataloader: DataLoader

    @property
    def num_classes(self) -> int | None:
        """Number of classes of multi-label data; None for other data."""
        if isinstance(self.dataset, MultiLabelDataset):
            return len(self.dataset.CLASSES)
        return None


def build_splits(
    cfg: Config,
    split: str = "val",
    holdout: int | None = None,
    train_images: int | None = None,
) -> tuple[Split, Split]:
    """Build what an evaluation learns from and what it is tested on.

    Args:
        cfg (Config): Training images are the dataset of ``val_cfg.bank_dataloader``;
            without one, that of ``train_dataloader``, with the pipeline of the test
            images. Test images are those of ``val_dataloader``.
        split (str): ``'test'`` takes ``test_cfg`` and ``test_dataloader`` instead.
            Defaults to ``'val'``.
        holdout (int | None): Test on the last images of the training split instead, and
            train on those before them. Defaults to None.
        train_images (int | None): Train on the first images only. Defaults to None,
            all of them. Where images come class by class, as those of folders do, the
            first and the last are those of a fixed permutation.

    Returns:
        tuple[Split, Split]: Training and test images.

    Raises:
        ValueError: If the config lacks one of them, or has too few images.
    """
    queries = cfg.get(f"{split}_dataloader")
    if queries is None and holdout is None:
        raise ValueError(
            f"The config has no {split}_dataloader, the images to test on. For images "
            "of your own, a sub-folder per class: --data train=DIR test=DIR."
        )
    key = f"{split}_cfg.bank_dataloader"
    bank = (cfg.get(f"{split}_cfg") or {}).get("bank_dataloader")
    if bank is None:
        key, bank = "train_dataloader", deepcopy(cfg.get("train_dataloader"))
        if bank is None or queries is None or "pipeline" not in bank.dataset:
            raise ValueError(
                f"The config has neither {split}_cfg.bank_dataloader nor a "
                f"train_dataloader and {split}_dataloader, whose images and pipeline "
                "could serve; or pass --data train=DIR test=DIR."
            )
        bank.dataset.pipeline = queries.dataset.pipeline
    train_set = DATASETS.build(bank.dataset)
    size = len(train_set)
    end = size - (holdout or 0)
    for option, value, limit in (
        ("--holdout", holdout, size - 1),
        ("--train-images", train_images, end),
    ):
        if value is not None and not 1 <= value <= limit:
            raise ValueError(
                f"{option} {value}: must be between 1 and {limit}; {key}.dataset has "
                f"{size} images" + (f", {holdout} held out." if holdout else ".")
            )
    order = range(size)
    if (holdout or train_images) and comes_by_class(train_set):
        order = np.random.default_rng(0).permutation(size).tolist()
    train = _build(key, train_set, order[: train_images or end], bank)
    if holdout is None:
        test_set = DATASETS.build(queries.dataset)
        rows = range(len(test_set))
        return train, _build(f"{split}_dataloader", test_set, rows, queries)
    return train, _build(key, train_set, order[end:], bank)


def comes_by_class(dataset: BaseDataset) -> bool:
    """Whether all images of the first class come first, then those of the next ..."""
    if isinstance(dataset, MultiLabelDataset):
        return False
    labels = [dataset.get_data_info(i).get("gt_label") for i in range(len(dataset))]
    return None not in labels and bool((np.diff(labels) >= 0).all())


def describe_images(dataset: BaseDataset, rows: Sequence[int]) -> dict:
    """Number of images, and a digest of up to 10,000 of them and of their labels.

    Of files it takes the name below the data's folder and the size, so that the folder
    may be moved.
    """
    digest, root = hashlib.sha256(), getattr(dataset, "data_root", None)
    for row in rows[:: max(1, -(-len(rows) // 10000))]:
        info = dataset.get_data_info(row)
        if "img_path" in info:
            path = info["img_path"]
            size = os.path.getsize(path) if os.path.exists(path) else None
            image = f"{os.path.relpath(path, root)} {size}".encode()
        else:
            image = np.asarray(info["img"]).tobytes()
        digest.update(image + str(info.get("gt_label")).encode())
    return {"images": len(rows), "sha256": digest.hexdigest()}


def _build(name: str, dataset: BaseDataset, rows: Sequence[int], loader: dict) -> Split:
    dataset.full_init()
    options = {"batch_size", "num_workers", "pin_memory"} & loader.keys()
    dataloader = DataLoader(
        Subset(dataset, rows),
        collate_fn=default_collate,
        **{key: loader[key] for key in options},
    )
    return Split(name, loader.dataset, dataset, rows, dataloader)
