#!/usr/bin/env python
"""Write an HTML page in which one walks from image to image along the neighbors.

The page is one file and needs no network. Images are those of the config's
val_dataloader (else test_dataloader, else train_dataloader), or of a folder; of many
images some are taken, evenly spread, and each has its neighbors among the others.
With --map the page is a map, on which similar images lie together.
"""

import argparse
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("config", help="the checkpoint's config, here or an installed one")
    add("checkpoint", help="file that tools/train.py wrote, or a backbone alone")
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
        help="default: neighbors.html or map.html beside the checkpoint; a .png is a "
        "picture of eight queries with the checkpoint's neighbors",
    )
    add("--map", action="store_true", help="draw a 2-D map of the features (t-SNE)")
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
    if args.map and args.out and args.out.suffix == ".png":
        parser.error(f"--out {args.out}: --map writes a page, .html")
    return args


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from rich.progress import track
from torch import nn

from snclr_mm.checkpoints.saved_model import load_model
from snclr_mm.cli import explain_refusal
from snclr_mm.visualization import (
    ImageSample,
    describe_images,
    extract_keys,
    find_neighbors,
    map_features,
    write_feature_map,
    write_neighbor_browser,
)


def load(path: str, config: str | None, trust: bool) -> tuple[nn.Module, Config]:
    """Model and config."""
    with explain_refusal():
        return load_model(path, config, trust)


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


def write(args: argparse.Namespace) -> Path:
    model, cfg = load(args.checkpoint, args.config, args.trust_checkpoint)
    init_default_scope(cfg.get("default_scope", "mmpretrain"))
    models = [model, *(load_compared(path, args) for path in args.compare)]
    images = ImageSample(cfg, args.num_queries, args.data_root)
    found = {}
    names = short_names([args.checkpoint, *args.compare])
    for name, model in zip(names, models, strict=True):
        model.to(args.device or get_device())
        batches = track(images.batches, f"features of {name}", transient=True)
        if args.map:
            found[name] = map_features(extract_keys(model, batches))
        else:
            found[name] = find_neighbors(model, batches, count=args.num_neighbors)
    page = "map.html" if args.map else "neighbors.html"
    out = args.out or Path(args.checkpoint).with_name(page)
    if not out.suffix:
        out = out / page
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        images.draw(found[names[0]], out)
    else:
        write_page = write_feature_map if args.map else write_neighbor_browser
        described = describe_images(
            images.pictures, images.names, images.labels, images.classes, images.about
        )
        write_page(out, described, found)
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
