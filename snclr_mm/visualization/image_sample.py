from pathlib import Path
from typing import BinaryIO

import numpy as np
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.dist import get_rank
from mmpretrain.registry import DATASETS
from rich.progress import track
from torch.utils.data import Dataset, Subset

from snclr_mm.cli import check_data_roots, explain_sizes
from snclr_mm.datasets import find_test_pipeline
from snclr_mm.evaluation import PreparedImages, list_images

from .neighbor_grid import plot_neighbors
from .neighbors import FoundNeighbors, evenly

STAGES = ("val", "test", "train")
BATCH_SIZE = 64
DRAWN = 8  # queries of a picture, and neighbors of each


class ImageSample:
    """Some images to look at, evenly spread over a dataset, read once.

    Attributes: ``batches`` for a model; ``pictures``, RGB, [H, W, 3], uint8, which are
    views of them; ``names`` of the files, or row numbers; ``labels``, a number or None
    for each image, or None; ``classes``, the names of the labels; ``about``, a sentence
    that says which images they are.

    Args:
        cfg (Config): The images are those of its val_dataloader, else of
            test_dataloader, else of train_dataloader.
        count (int): Images, at most.
        data_root (str, optional): Folder whose images are taken instead. If all of them
            are in sub-folders, these are the classes. Defaults to None.

    Raises:
        ValueError: If there are fewer than two images, or one cannot be read.
        FileNotFoundError: If the images are not where they are said to be.
    """

    def __init__(self, cfg: Config, count: int, data_root: str | None = None) -> None:
        self.labels: list[int | None] | None = None
        self.classes: list[str] = []
        if data_root is None:
            dataset, total, source = self._of_config(cfg, count)
        else:
            dataset, total, source = self._of_folder(cfg, count, data_root)
        self.about = f"{len(self.names)} of the {total} images of {source}"
        if len(self.names) < 2:
            raise ValueError(f"{self.about}: an image needs others as neighbors.")
        rows = range(len(dataset))
        starts = track(
            rows[::BATCH_SIZE],
            "reading images",
            transient=True,
            disable=get_rank() > 0,
        )
        with explain_sizes(source):
            # No DataLoader: it would draw from the random numbers of a training.
            self.batches = [
                default_collate([dataset[row] for row in rows[i : i + BATCH_SIZE]])
                for i in starts
            ]
        order = slice(None, None, -1 if self._bgr else 1)
        self.pictures = [
            image.numpy().transpose(1, 2, 0)[..., order]
            for batch in self.batches
            for image in batch["inputs"]
        ]

    def class_name(self, row: int) -> str | None:
        """Of an image; None where it is not known."""
        label = None if self.labels is None else self.labels[row]
        if label is None:
            return None
        known = 0 <= label < len(self.classes)
        return self.classes[label] if known else f"class {label}"

    def draw(self, found: FoundNeighbors, path: str | Path | BinaryIO) -> None:
        """Draw eight of the images, evenly spread, with their first eight neighbors.

        Args:
            found (FoundNeighbors): Neighbors of every image among the others.
            path (str | Path | BinaryIO): PNG to write.
        """
        rows = evenly(len(self.names), DRAWN)
        index = found.index[rows, :DRAWN].tolist()
        names = {}
        if self.labels is not None:
            names["query_names"] = [self.class_name(row) for row in rows]
            names["neighbor_names"] = [[self.class_name(i) for i in r] for r in index]
        plot_neighbors(
            [self.pictures[row] for row in rows],
            [[self.pictures[i] for i in line] for line in index],
            found.score[rows, :DRAWN].numpy(),
            path,
            found.chance,
            **names,
        )

    def _of_config(self, cfg: Config, count: int) -> tuple[Dataset, int, str]:
        stages = [stage for stage in STAGES if cfg.get(f"{stage}_dataloader")]
        if not stages:
            raise ValueError("The config has no images: give a folder, --data-root DIR")
        check_data_roots(cfg, stages[:1])
        config = cfg[f"{stages[0]}_dataloader"].dataset
        dataset = DATASETS.build({**config, "pipeline": find_test_pipeline(cfg)})
        rows = evenly(len(dataset), count)
        infos = [dataset.get_data_info(row) for row in rows]
        root = f"{config.get('data_root') or ''}"
        self._bgr = "img_path" in infos[0] if infos else True
        self.names = [
            str(info["img_path"]).removeprefix(root).lstrip("/")
            if self._bgr
            else str(row)
            for row, info in zip(rows, infos, strict=True)
        ]
        labels = [info.get("gt_label") for info in infos]
        if all(np.ndim(label) == 0 for label in labels) and any(
            label is not None for label in labels
        ):
            self.labels = [None if label is None else int(label) for label in labels]
            self.classes = list(dataset.metainfo.get("classes") or [])
        source = f"{stages[0]}_dataloader.dataset"
        return Subset(dataset, rows), len(dataset), f"{source} ({root})"

    def _of_folder(
        self, cfg: Config, count: int, data_root: str
    ) -> tuple[Dataset, int, str]:
        paths = list_images(data_root)
        total = len(paths)
        paths = [paths[row] for row in evenly(total, count)]
        parts = [Path(path).relative_to(data_root).parts for path in paths]
        dataset = PreparedImages(paths, cfg)
        self._bgr = dataset.bgr
        self.names = ["/".join(part) for part in parts]
        if all(len(part) > 1 for part in parts):
            self.classes = sorted({part[0] for part in parts})
            number = {name: i for i, name in enumerate(self.classes)}
            self.labels = [number[part[0]] for part in parts]
        return dataset, total, data_root
