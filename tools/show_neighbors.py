#!/usr/bin/env python
"""Draw some of your own photos with the neighbors that a checkpoint finds for them.

Needs no labels. Of a network with soft neighbors a bar shows how much each neighbor
counts in the loss, else how similar it is. Where all photos are in sub-folders, as for
tools/evaluate.py, --classes takes those as classes.
"""

import argparse
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "checkpoint",
        help="file that tools/train.py wrote, or a backbone alone and --config",
    )
    add("--data-root", metavar="DIR", required=True, help="folder of photos")
    add("--out", type=Path, help="PNG to write (default: neighbors.png beside it)")
    add("--config", help="the checkpoint's config (default: as the checkpoint tells)")
    add("--queries", type=int, default=8, help="photos to draw (default: 8)")
    add("--neighbors", type=int, default=8, help="of each photo (default: 8)")
    add("--images", type=int, default=10000, help="at most (default: 10000)")
    add("--classes", action="store_true", help="sub-folders of DIR are classes")
    add(
        "--saliency",
        action="store_true",
        help="show what makes a neighbor similar; needs the package grad-cam",
    )
    add("--device", help="default: a GPU if there is one")
    add("--trust-checkpoint", action="store_true", help="as in tools/train.py")
    args = parser.parse_args(argv)
    for name in ("queries", "neighbors", "images"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: must be at least 1")
    return args


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.device import get_device
from rich.progress import track

from snclr_mm.checkpoints.saved_model import load_model
from snclr_mm.cli import explain_refusal
from snclr_mm.evaluation import PreparedImages, list_images
from snclr_mm.visualization import (
    evenly,
    find_neighbors,
    plot_neighbors,
    similarity_maps,
)


def main(argv: list[str] | None = None) -> Path:
    args = parse_args(argv)
    try:
        paths = list_images(args.data_root)
        with explain_refusal():
            model, cfg = load_model(args.checkpoint, args.config, args.trust_checkpoint)
    except (ValueError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    paths = [paths[row] for row in evenly(len(paths), args.images)]
    model.to(args.device or get_device())
    dataset = PreparedImages(paths, cfg)
    rows = evenly(len(paths), args.queries)
    batches = track(dataset.batches(64), "reading photos", transient=True)
    samples = {row: dataset[row] for row in rows}
    queries = default_collate(list(samples.values()))
    if args.saliency:
        try:  # a refusal comes now, and not after all photos
            similarity_maps(model, queries, queries)
        except (ValueError, ImportError) as error:
            raise SystemExit(f"Error: {error}") from None
    found = find_neighbors(
        model, batches, queries, args.neighbors, own=torch.tensor(rows)
    )
    index = found.index.tolist()
    samples |= {i: dataset[i] for line in index for i in line if i not in samples}
    saliency, names = None, {}
    if args.saliency:
        pairs = [
            (
                default_collate([samples[row]] * len(line)),
                default_collate([samples[i] for i in line]),
            )
            for row, line in zip(rows, index, strict=True)
        ]
        saliency = np.stack([similarity_maps(model, *pair) for pair in pairs])
    if args.classes:
        parts = [Path(path).relative_to(args.data_root).parts for path in paths]
        for part in parts:
            if len(part) == 1:
                raise SystemExit(
                    f"--classes: {part[0]} is in no sub-folder of {args.data_root}."
                )
        name = [part[0] for part in parts]
        names["query_names"] = [name[row] for row in rows]
        names["neighbor_names"] = [[name[i] for i in line] for line in index]
    out = args.out or Path(args.checkpoint).with_name("neighbors.png")
    order = slice(None, None, -1 if dataset.bgr else 1)
    pictures = {  # RGB, [H, W, 3], of what the pipeline gives
        i: sample["inputs"].numpy().transpose(1, 2, 0)[..., order]
        for i, sample in samples.items()
    }
    plot_neighbors(
        [pictures[row] for row in rows],
        [[pictures[i] for i in line] for line in index],
        found.score.numpy(),
        out,
        found.chance,
        **names,
        saliency=saliency,
    )
    print(f"{len(paths)} photos; {len(rows)} of them with their neighbors: {out}")
    return out


if __name__ == "__main__":
    main()
