#!/usr/bin/env python
"""Write an HTML page in which one walks from image to image along the neighbors.

The page is one file and needs no network. Images are those of the config's
val_dataloader (else test_dataloader, else train_dataloader), or of a folder; of many
images some are taken, evenly spread, and each has its neighbors among the others.
"""

import argparse
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("config", help="the checkpoint's config, here or an installed one")
    add("checkpoint", help="file that tools/train.py wrote")
    add(
        "--compare",
        nargs="+",
        default=[],
        metavar="CHECKPOINT",
        help="further checkpoints, to be shown beside it; of any config, which they "
        "hold themselves (else: CONFIG)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR|FILE",
        help="default: neighbors.html beside the checkpoint; a .png is a picture of "
        "eight queries with the checkpoint's neighbors",
    )
    add("--num-queries", type=int, default=2000, help="images to take (default: 2000)")
    add(
        "--num-neighbors",
        type=int,
        default=30,
        help="of each image, at most; those of soft neighbors at most K (default: 30)",
    )
    add(
        "--data-root",
        metavar="DIR",
        help="images below this folder in place of the config's; where all are in "
        "sub-folders, these are the classes",
    )
    add("--device", help="default: a GPU if there is one")
    add("--trust-checkpoint", action="store_true", help="as in tools/train.py")
    args = parser.parse_args(argv)
    if args.num_queries < 2:
        parser.error(f"--num-queries {args.num_queries}: must be at least 2")
    if args.num_neighbors < 1:
        parser.error(f"--num-neighbors {args.num_neighbors}: must be at least 1")
    return args


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import numpy as np
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader, Subset

from snclr_mm.checkpoints.saved_model import load_model
from snclr_mm.cli import (
    check_data_roots,
    explain_refusal,
    explain_sizes,
    find_test_pipeline,
)
from snclr_mm.evaluation import PreparedImages, list_images
from snclr_mm.visualization import (
    evenly,
    find_neighbors,
    plot_neighbors,
    write_neighbor_browser,
)


class Images:
    """Some rows of a dataset, read once.

    Attributes: ``batches`` for a model; ``pictures``, RGB; ``names``; ``labels``, or
    None; ``classes``; ``about``.
    """

    def __init__(self, cfg: Config, args: argparse.Namespace) -> None:
        self.labels: list[int | None] | None = None
        self.classes: list[str] = []
        if args.data_root is None:
            dataset, total, source = self._of_config(cfg, args.num_queries)
        else:
            dataset, total, source = self._of_folder(cfg, args)
        self.about = f"{len(self.names)} of the {total} images of {source}"
        if len(self.names) < 2:
            raise ValueError(f"{self.about}: an image needs others as neighbors.")
        loader = DataLoader(dataset, 64, collate_fn=default_collate)
        with explain_sizes(source):
            self.batches = list(track(loader, "reading images", transient=True))
        order = slice(None, None, -1 if self.bgr else 1)
        self.pictures = [
            image.numpy().transpose(1, 2, 0)[..., order]
            for batch in self.batches
            for image in batch["inputs"]
        ]

    def _of_config(self, cfg: Config, count: int) -> tuple:
        stages = [s for s in ("val", "test", "train") if cfg.get(f"{s}_dataloader")]
        if not stages:
            raise ValueError("The config has no images: give a folder, --data-root DIR")
        check_data_roots(cfg, stages[:1])
        config = cfg[f"{stages[0]}_dataloader"].dataset
        dataset = DATASETS.build({**config, "pipeline": find_test_pipeline(cfg)})
        rows = evenly(len(dataset), count)
        infos = [dataset.get_data_info(row) for row in rows]
        root = f"{config.get('data_root') or ''}"
        self.bgr = "img_path" in infos[0] if infos else True
        self.names = [
            str(info["img_path"]).removeprefix(root).lstrip("/") if self.bgr else str(r)
            for r, info in zip(rows, infos, strict=True)
        ]
        labels = [info.get("gt_label") for info in infos]
        if all(np.ndim(label) == 0 for label in labels) and any(
            label is not None for label in labels
        ):
            self.labels = [None if label is None else int(label) for label in labels]
            self.classes = list(dataset.metainfo.get("classes") or [])
        source = f"{stages[0]}_dataloader.dataset"
        return Subset(dataset, rows), len(dataset), f"{source} ({root})"

    def _of_folder(self, cfg: Config, args: argparse.Namespace) -> tuple:
        paths = list_images(args.data_root)
        total = len(paths)
        paths = [paths[row] for row in evenly(total, args.num_queries)]
        parts = [Path(path).relative_to(args.data_root).parts for path in paths]
        dataset = PreparedImages(paths, cfg)
        self.bgr = dataset.bgr
        self.names = ["/".join(part) for part in parts]
        if all(len(part) > 1 for part in parts):
            self.classes = sorted({part[0] for part in parts})
            number = {name: i for i, name in enumerate(self.classes)}
            self.labels = [number[part[0]] for part in parts]
        return dataset, total, args.data_root


def load(path: str, config: str | None, trust: bool) -> tuple[nn.Module, Config]:
    """Model and config; one sentence where they do not fit."""
    try:
        with explain_refusal():
            return load_model(path, config, trust)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} is not a checkpoint of {config or 'the config in it'}: {reason}"
        ) from None


def load_compared(path: str, args: argparse.Namespace) -> nn.Module:
    """By the config in the checkpoint, else by that of the command line."""
    try:
        return load(path, None, args.trust_checkpoint)[0]
    except ValueError as error:
        if "holds no config" not in str(error):
            raise
        return load(path, args.config, args.trust_checkpoint)[0]


def short_names(paths: list[str]) -> list[str]:
    """As much of the ends of the paths as tells them apart."""
    parts = [Path(path).absolute().parts for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def draw(path: Path, images: Images, found) -> None:
    """Eight queries with their first eight neighbors, as a picture."""
    rows = evenly(len(images.names), 8)
    index = found.index[rows, :8].tolist()
    names = {}
    if images.labels is not None:
        name = [images.classes[i] if images.classes else str(i) for i in images.labels]
        names["query_names"] = [name[row] for row in rows]
        names["neighbor_names"] = [[name[i] for i in line] for line in index]
    plot_neighbors(
        [images.pictures[row] for row in rows],
        [[images.pictures[i] for i in line] for line in index],
        found.score[rows, :8].numpy(),
        path,
        found.chance,
        **names,
    )


def write(args: argparse.Namespace) -> Path:
    model, cfg = load(args.checkpoint, args.config, args.trust_checkpoint)
    init_default_scope(cfg.get("default_scope", "mmpretrain"))
    models = [model, *(load_compared(path, args) for path in args.compare)]
    images = Images(cfg, args)
    found = {}
    names = short_names([args.checkpoint, *args.compare])
    for name, model in zip(names, models, strict=True):
        model.to(args.device or get_device())
        batches = track(images.batches, f"features of {name}", transient=True)
        found[name] = find_neighbors(model, batches, count=args.num_neighbors)
    out = args.out or Path(args.checkpoint).with_name("neighbors.html")
    if not out.suffix:
        out = out / "neighbors.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        draw(out, images, found[names[0]])
    else:
        write_neighbor_browser(
            out,
            images.pictures,
            images.names,
            found,
            images.labels,
            images.classes,
            images.about,
        )
    labels = f"{len(set(images.labels))} classes" if images.labels else "no labels"
    print(f"{images.about}, {labels}: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return out


def main(argv: list[str] | None = None) -> Path:
    args = parse_args(argv)
    try:
        return write(args)
    except (ValueError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main()
