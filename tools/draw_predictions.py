#!/usr/bin/env python
"""Draw what a detector or segmentor predicts, with its library's own visualizer.

Takes pictures evenly from the test set; of each pair the truth is on the left.
"""

import argparse
import tempfile
from pathlib import Path

from options import add_common_arguments

GAP = 6  # between pictures, pixels


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("config", help="detection or segmentation config")
    add("checkpoint", help="its checkpoint")
    add("out", type=Path, metavar="OUT", help="PNG to write")
    add("--images", type=int, default=6, help="pictures to draw")
    add("--columns", type=int, default=3, help="pictures in a row")
    add("--score", type=float, default=0.3, help="draw boxes from this score on")
    add("--enlarge", type=int, default=1, help="factor for small pictures")
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    for name in ("images", "columns", "enlarge"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: must be at least 1")
    return args


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import cv2
import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from snclr_mm.cli import (
    build_runner,
    check_data_roots,
    load_config,
    merge_options,
    set_dataloader_defaults,
)


def draw(runner: Runner, args: argparse.Namespace) -> list[np.ndarray]:
    """Predict and draw: pictures [H, W, 3], uint8, BGR."""
    dataset = runner.test_dataloader.dataset
    runner.visualizer.dataset_meta = dataset.metainfo
    detector = runner.cfg.default_scope == "mmdet"
    options = {"pred_score_thr": args.score} if detector else {}
    runner.model.eval()
    pictures = []
    count = min(args.images, len(dataset))
    with tempfile.TemporaryDirectory() as folder:
        for i in np.linspace(0, len(dataset) - 1, count).round().astype(int):
            batch = pseudo_collate([dataset[int(i)]])
            with torch.no_grad():
                sample = runner.model.test_step(batch)[0].cpu()
            photo = mmcv.imread(sample.img_path, channel_order="rgb")
            photo = photo.repeat(args.enlarge, 0).repeat(args.enlarge, 1)
            enlarge(sample, args.enlarge)
            path = f"{folder}/{i}.png"
            runner.visualizer.add_datasample(
                str(i), photo, sample, out_file=path, **options
            )
            pictures.append(mmcv.imread(path))
    return pictures


def enlarge(sample, factor: int) -> None:
    """Scale a prediction and its truth, in place, for a picture so much larger."""
    for name, part in sample.all_items():
        if name in ("gt_instances", "pred_instances"):
            # The truth's are of MMDetection's own classes.
            boxes, masks = part.bboxes, part.get("masks")
            part.bboxes = factor * getattr(boxes, "tensor", boxes)
            if masks is not None:
                if not isinstance(masks, torch.Tensor):
                    masks = torch.from_numpy(masks.to_ndarray())
                part.masks = repeat(masks, factor).bool()
        elif name in ("gt_sem_seg", "pred_sem_seg"):
            pixels = repeat(part.data, factor)
            del part.data  # PixelData takes no other size
            part.data = pixels


def repeat(maps: torch.Tensor, factor: int) -> torch.Tensor:
    """[..., H, W] to [..., factor * H, factor * W]."""
    return maps.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def tile(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures in rows, on white."""
    height, width = np.max([p.shape[:2] for p in pictures], axis=0) + GAP
    cells = [mmcv.impad(p, shape=(height, width), pad_val=255) for p in pictures]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return np.vstack([np.hstack(row) for row in rows])[:-GAP, :-GAP]


def add_captions(picture: np.ndarray, columns: int) -> np.ndarray:
    """Say above each column of pairs which half is the truth."""
    strip = np.full((18, *picture.shape[1:]), 255, np.uint8)
    half = (picture.shape[1] + GAP - columns * GAP) / columns / 2
    for column in range(columns):
        for side, text in enumerate(("truth", "prediction")):
            x = round(column * (2 * half + GAP) + side * half) + 2
            font = (cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
            cv2.putText(strip, text, (x, 13), *font)
    return np.vstack([strip, picture])


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args)
    if cfg.get("default_scope") not in ("mmdet", "mmseg"):
        raise SystemExit(f"{args.config} is not of MMDetection or MMSegmentation.")
    merge_options(cfg, args.cfg_options)
    set_dataloader_defaults(cfg)
    check_data_roots(cfg, stages=["test"])
    with build_runner(cfg, args.trust_checkpoint, training=False) as runner:
        try:
            runner.load_checkpoint(args.checkpoint, strict=True)
        except RuntimeError as error:
            raise SystemExit(
                f"{args.checkpoint} is not a checkpoint of {args.config}: {error}"
            ) from None
        pictures = draw(runner, args)
    columns = min(args.columns, len(pictures))
    picture = add_captions(tile(pictures, columns), columns)
    mmcv.imwrite(picture, str(args.out))
    print(args.out)


if __name__ == "__main__":
    main()
