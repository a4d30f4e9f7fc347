#!/usr/bin/env python
"""Images per second of two views: MMCV's pipelines against the gpu-aug configs.

Both are the repository's own configs, on real photographs. For each data set: what one
worker core loads, what the device augments and normalizes, and how many worker cores
feed a GPU of a given speed. With --workers, also whole epochs through a DataLoader.
Everything runs alternately in one process, warmed up; medians are given.
"""

import argparse
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import mmcv
import numpy as np
import report
import torch
from measuring import Record, interleave, make_parser, timed
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

CONFIGS = Path(__file__).parents[2] / "configs"
#: Name, config of MMCV's pipeline, config of ours, pixels of the files (None: photos).
CASES = [
    ("ImageNet, 224 px", "snclr_r50_8xb256.py",
     "imagenet/snclr_r50_8xb256-gpu-aug-100e_in1k.py", None),
    ("Tiny-ImageNet, 64 px", "small_images/snclr_r18_1xb256-200e_small-images.py",
     "small_images/snclr_r18_1xb256-gpu-aug-200e_small-images.py", 64),
    ("Fashion-MNIST, 28 px", "snclr_resnet-tiny_1xb128_fashion-mnist.py",
     "snclr_resnet-tiny_1xb128-gpu-aug_fashion-mnist.py", 28),
]  # fmt: skip
SIDES = ("MMCV", "gpu-aug")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        __doc__, "benchmark_data.json",
        images=(64, "how many photographs"), batch=(64, "batch on the device"),
        repeats=(5, "of each measurement"),
        workers=(0, "of a DataLoader, for whole epochs; 0 leaves them out"),
        batches=(20, "of such an epoch"),
        step=([1000.0, 2000.0, 4000.0], "images/s at which a GPU trains by itself"),
    )  # fmt: skip
    parser.add_argument(
        "--photos", type=Path,
        help="folder of JPEG photographs; without, crops of scikit-learn's two, "
        "500 x 375, quality 90",
    )  # fmt: skip
    parser.set_defaults(device="cpu")  # that augments
    return parser.parse_args(argv)


def crops(photos: list[np.ndarray], height: int, width: int, n: int) -> Iterator:
    """Yield n crops [height, width, 3] from all over the photographs, in turn."""
    generator = np.random.default_rng(0)
    for i in range(n):
        photo = photos[i % len(photos)]
        top = generator.integers(photo.shape[0] - height + 1)
        left = generator.integers(photo.shape[1] - width + 1)
        yield photo[top : top + height, left : left + width].copy()


def find_photos(folder: Path, args: argparse.Namespace) -> list[Path]:
    """The given JPEG files, or files of ImageNet's usual size from scikit-learn's."""
    if args.photos is None:
        from sklearn.datasets import load_sample_images

        folder.mkdir()
        photos = load_sample_images().images
        for i, crop in enumerate(crops(photos, 375, 500, args.images)):
            Image.fromarray(crop).save(folder / f"{i:05d}.jpg", quality=90)
    files = sorted((args.photos or folder).glob("*.[jJ][pP]*[gG]"))[: args.images]
    if not files:
        raise SystemExit(f"{args.photos} holds no JPEG files (--photos).")
    return files


class InMemory(Dataset):
    """Gray images through a pipeline, as MMPretrain's FashionMNIST holds them."""

    def __init__(self, images: list[np.ndarray], pipeline: list[dict]) -> None:
        self.images, self.pipeline = images, Compose(pipeline)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return self.pipeline({"img": self.images[index].copy()})


def build_side(config: str, size: int | None, photos: list[Path], folder: Path, args):
    """A config's training set on the photographs, and its data preprocessor."""
    cfg = Config.fromfile(CONFIGS / config)
    dataset = cfg.train_dataloader.dataset
    root = photos[0].parent
    if size is not None:
        tiles = list(crops([mmcv.imread(p) for p in photos], size, size, len(photos)))
        root = folder / f"{size}px"
    if dataset.type == "FashionMNIST":
        data = InMemory([mmcv.bgr2gray(tile) for tile in tiles], dataset.pipeline)
    else:
        if size is not None and not root.exists():
            for i, tile in enumerate(tiles):
                mmcv.imwrite(tile, str(root / f"{i}.jpg"))
        changes = dict(data_root=str(root), indices=len(photos))
        if "cache_dir" in dataset:
            changes["cache_dir"] = str(folder / "cache")
        data = DATASETS.build({**dataset, **changes})
    return data, MODELS.build(cfg.data_preprocessor).to(args.device)


def medians(functions: dict[str, Callable], repeats: int, device: str = "cpu") -> dict:
    """Median seconds of each, measured in turn after a first call.

    On the CPU, with its one thread, they are CPU time, to which other jobs do not add.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    taken = interleave(functions, device, repeats, 1, clock)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure_case(case: tuple, photos: list[Path], folder: Path, args) -> dict:
    """Images/s of a worker core and of the device, on both sides."""
    name, *configs, size = case
    sides = {
        side: build_side(config, size, photos, folder, args)
        for side, config in zip(SIDES, configs, strict=True)
    }
    loading, steps, epochs = {}, {}, {}
    for side, (data, preprocessor) in sides.items():
        batch = default_collate([data[i % len(data)] for i in range(args.batch)])
        # The batch lies on the device: copies overlap with training.
        batch["inputs"] = preprocessor.cast_data(batch["inputs"])
        batch["data_samples"] = None
        loading[side] = lambda data=data: [data[i] for i in range(len(data))]
        steps[side] = partial(preprocessor, batch, True)
        epochs[side] = partial(run_epoch, data, preprocessor, args)
    loading = medians(loading, args.repeats)
    steps = medians(steps, args.repeats, args.device)
    result = {"name": name}
    for side in SIDES:
        worker, device = len(photos) / loading[side], args.batch / steps[side]
        result[side] = {
            "worker": worker,
            "device": device,
            # One core that does everything: what a machine without a GPU gets of it.
            "both": 1 / (1 / worker + 1 / device),
            "cores": {f"{step:g}": math.ceil(step / worker) for step in args.step},
        }
    rates = {side: [] for side in SIDES}
    for side in SIDES * (min(2, args.repeats) if args.workers else 0):
        rates[side].append(epochs[side]())
        result[side]["loader"] = statistics.median(rates[side])
    return result


def run_epoch(data: Dataset, preprocessor: torch.nn.Module, args) -> float:
    """Images/s from files to normalized views on the device, workers running."""
    warm_up = 2 * args.workers
    # Many times what the workers have ready when the clock starts.
    batches = max(args.batches, 8 * args.workers)
    size = min(args.batch, 64)
    loader = DataLoader(
        data,
        size,
        sampler=RandomSampler(data, True, (warm_up + batches) * size),
        num_workers=args.workers,
        collate_fn=default_collate,
        pin_memory=args.device == "cuda",
    )
    iterator = iter(loader)
    for _ in range(warm_up):
        preprocessor(next(iterator), True)

    def rest() -> None:
        for batch in iterator:
            preprocessor(batch, True)

    return batches * size / timed(rest, args.device)[0]


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    warnings.filterwarnings("ignore", "Only use 'alpha'")
    init_default_scope("mmpretrain")
    torch.set_num_threads(1)  # a worker's
    cv2.setNumThreads(0)
    record = Record(args)
    record["clock"] = "CPU time" if args.device == "cpu" else "wall clock on the device"
    with tempfile.TemporaryDirectory() as folder:
        photos = find_photos(Path(folder, "photos"), args)
        record["images"] = len(photos)
        for case in CASES:
            record.add(measure_case(case, photos, Path(folder), args))
    report.show("data", record)
    return record


if __name__ == "__main__":
    main()
