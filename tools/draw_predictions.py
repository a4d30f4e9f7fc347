#!/usr/bin/env python
"""Draw what a detector or segmentor predicts, with its library's own visualizer.

Takes pictures evenly from the test set; of each pair the truth is on the left.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from snclr_mm.cli import (
    add_common_arguments,
    build_runner,
    check_data_roots,
    load_config,
    set_dataloader_defaults,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="detection or segmentation config")
    parser.add_argument("checkpoint", help="its checkpoint")
    parser.add_argument("out", type=Path, metavar="OUT", help="PNG to write")
    parser.add_argument("--images", type=int, default=6, help="default: 6")
    parser.add_argument("--columns", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--score", type=float, default=0.3, help="draw boxes from this; default: 0.3"
    )
    parser.add_argument(
        "--enlarge",
        type=int,
        default=1,
        help="small pictures so many times; default: 1",
    )
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    for name in ("images", "columns", "enlarge"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: must be at least 1")
    return args


def draw(runner: Runner, args: argparse.Namespace) -> list[np.ndarray]:
    """Predict and draw: pictures [H, W, 3], uint8, BGR."""
    dataset = runner.test_dataloader.dataset
    runner.visualizer.dataset_meta = dataset.metainfo
    options = (
        {"pred_score_thr": args.score} if runner.cfg.default_scope == "mmdet" else {}
    )
    runner.model.eval()
    pictures = []
    count = min(args.images, len(dataset))
    with tempfile.TemporaryDirectory() as folder:
        for i in np.linspace(0, len(dataset) - 1, count).round().astype(int):
            batch = pseudo_collate([dataset[int(i)]])
            with torch.no_grad():
                sample = runner.model.test_step(batch)[0].cpu()
            photo = mmcv.imread(sample.img_path, channel_order="rgb")
            enlarge(sample, args.enlarge)
            path = Path(folder, f"{i}.png")
            runner.visualizer.add_datasample(
                path.stem,
                photo.repeat(args.enlarge, 0).repeat(args.enlarge, 1),
                sample,
                out_file=str(path),
                **options,
            )
            pictures.append(mmcv.imread(str(path)))
    return pictures


def enlarge(sample, factor: int) -> None:
    """Scale a prediction and its truth, in place, for a picture so much larger."""
    for name in ("gt_instances", "pred_instances"):
        instances = getattr(sample, name, None)
        if instances is None:
            continue
        if not isinstance(instances.bboxes, torch.Tensor):
            instances.bboxes = instances.bboxes.tensor
        instances.bboxes = instances.bboxes * factor
        if "masks" in instances:
            masks = instances.masks
            if not isinstance(masks, torch.Tensor):
                masks = torch.from_numpy(masks.to_ndarray())
            instances.masks = repeat(masks, factor).bool()
    for name in ("gt_sem_seg", "pred_sem_seg"):
        if hasattr(sample, name):
            pixels = getattr(sample, name)
            data = repeat(pixels.data, factor)
            delattr(pixels, "data")
            pixels.data = data


def repeat(maps: torch.Tensor, factor: int) -> torch.Tensor:
    """[..., H, W] to [..., factor * H, factor * W]."""
    return maps.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def tile(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures in rows, on white."""
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    rows = -(-len(pictures) // columns)
    gap = 6
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8
    )
    for i, picture in enumerate(pictures):
        top = i // columns * (height + gap)
        left = i % columns * (width + gap)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args)
    if cfg.get("default_scope") not in ("mmdet", "mmseg"):
        raise SystemExit(f"{args.config} is not of MMDetection or MMSegmentation.")
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    set_dataloader_defaults(cfg)
    check_data_roots(cfg, stages=["test"])
    with build_runner(cfg, args.trust_checkpoint) as runner:
        try:
            runner.load_checkpoint(args.checkpoint, strict=True)
        except RuntimeError as error:
            raise SystemExit(
                f"{args.checkpoint} is not a checkpoint of {args.config}: {error}"
            ) from None
        pictures = draw(runner, args)
    mmcv.imwrite(tile(pictures, args.columns), str(args.out))
    print(args.out)


if __name__ == "__main__":
    main()
