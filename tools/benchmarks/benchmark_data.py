#!/usr/bin/env python
"""Images per second of two views: MMCV's pipelines against the gpu-aug configs.

Both are the repository's own configs, on real photographs. For each data set: what one
worker core loads, what the device augments and normalizes, and how many worker cores
feed a GPU of a given speed. Also the JPEG decoders that are installed and, with
--workers, whole epochs through a DataLoader. Everything runs alternately in one
process, warmed up; medians are given. Prints tables and writes JSON; fails if what both
do to the same images differs by more than chance.
"""

import argparse
import importlib
import importlib.metadata
import io
import math
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import cv2
import mmcv
import mmpretrain.datasets  # noqa: F401  (registers the transforms)
import numpy as np
import torch
from measuring import interleave, machine, seconds, write
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image
from torch.utils.data import DataLoader, Dataset

CONFIGS = Path(__file__).parents[2] / "configs"
#: Name, config of MMCV's pipeline, config of ours, pixels of the files (None: photos).
CASES = [
    (
        "ImageNet, 224 px",
        "snclr_r50_8xb256.py",
        "imagenet/snclr_r50_8xb256-gpu-aug-100e_in1k.py",
        None,
    ),
    (
        "Tiny-ImageNet, 64 px",
        "small_images/snclr_r18_1xb256-200e_small-images.py",
        "small_images/snclr_r18_1xb256-gpu-aug-200e_small-images.py",
        64,
    ),
    (
        "Fashion-MNIST, 28 px",
        "snclr_resnet-tiny_1xb128_fashion-mnist.py",
        "snclr_resnet-tiny_1xb128-gpu-aug_fashion-mnist.py",
        28,
    ),
]
SIDES = ("MMCV", "gpu-aug")
STATISTICS = ("blue", "green", "red", "contrast", "edges", "color")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="that augments: cpu or cuda")
    parser.add_argument(
        "--photos",
        type=Path,
        help="folder of JPEG photographs; without, crops of 500 x 375 from the two "
        "that scikit-learn ships, quality 90",
    )
    parser.add_argument("--images", type=int, default=64, help="how many photographs")
    parser.add_argument("--batch", type=int, default=64, help="batch on the device")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="of a DataLoader, for whole epochs; 0 leaves them out",
    )
    parser.add_argument("--batches", type=int, default=20, help="of such an epoch")
    parser.add_argument(
        "--step",
        type=float,
        nargs="+",
        default=[1000, 2000, 4000],
        help="images/s at which a GPU trains, without its augmentation",
    )
    parser.add_argument("--out", type=Path, default="benchmark_data.json")
    return parser.parse_args(argv)


def make_photos(folder: Path, n: int) -> None:
    """JPEG files of ImageNet's usual size, from scikit-learn's photographs."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise SystemExit("scikit-learn is not installed: give --photos.") from None
    photos = load_sample_images().images
    generator = np.random.default_rng(0)
    for i in range(n):
        photo = photos[i % len(photos)]
        top, left = (generator.integers(side) for side in (427 - 374, 640 - 499))
        crop = Image.fromarray(photo[top : top + 375, left : left + 500])
        crop.save(folder / f"{i:05d}.jpg", quality=90)


def cut_tiles(photos: list[Path], size: int, n: int) -> list[np.ndarray]:
    """Images [size, size, 3], BGR, from all over the photographs."""
    generator = np.random.default_rng(0)
    tiles = []
    for i in range(n):
        photo = mmcv.imread(str(photos[i % len(photos)]))
        top, left = (generator.integers(side - size + 1) for side in photo.shape[:2])
        tiles.append(photo[top : top + size, left : left + size].copy())
    return tiles


class InMemory(Dataset):
    """Gray images through a pipeline, as MMPretrain's FashionMNIST holds them."""

    def __init__(self, images: list[np.ndarray], pipeline: list[dict]) -> None:
        self.images, self.pipeline = images, Compose(pipeline)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return self.pipeline({"img": self.images[index].copy()})


class Repeated(Dataset):
    """A data set as often as it takes."""

    def __init__(self, dataset: Dataset, length: int) -> None:
        self.dataset, self.length = dataset, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.dataset[index % len(self.dataset)]


def build_side(config: str, size: int | None, photos: list[Path], folder: Path, args):
    """A config's training set on the photographs, and its data preprocessor."""
    cfg = Config.fromfile(CONFIGS / config)
    dataset = cfg.train_dataloader.dataset
    if dataset.type == "FashionMNIST":
        tiles = [mmcv.bgr2gray(tile) for tile in cut_tiles(photos, size, args.images)]
        data = InMemory(tiles, dataset.pipeline)
    else:
        root = photos[0].parent
        if size is not None:
            root = folder / f"{size}px"
            if not root.exists():
                for i, tile in enumerate(cut_tiles(photos, size, args.images)):
                    mmcv.imwrite(tile, str(root / f"{i}.jpg"))
        changes = dict(data_root=str(root), indices=args.images)
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


def load_all(dataset: Dataset) -> None:
    for i in range(len(dataset)):
        dataset[i]


def measure_case(case: tuple, photos: list[Path], folder: Path, args) -> dict:
    """Images/s of a worker core and of the device, on both sides."""
    name, *configs, size = case
    sides = {
        side: build_side(config, size, photos, folder, args)
        for side, config in zip(SIDES, configs, strict=True)
    }
    loading = medians(
        {side: partial(load_all, data) for side, (data, _) in sides.items()},
        args.repeats,
    )
    steps = {}
    for side, (data, preprocessor) in sides.items():
        batch = default_collate([data[i % len(data)] for i in range(args.batch)])
        # The batch lies on the device: copies overlap with training.
        batch["inputs"] = preprocessor.cast_data(batch["inputs"])
        batch["data_samples"] = None
        steps[side] = partial(preprocessor, batch, True)
    on_device = medians(steps, args.repeats, args.device)
    result = {"name": name}
    for side, (data, _) in sides.items():
        result[side] = {
            "worker": len(data) / loading[side],
            "device": args.batch / on_device[side],
        }
    if args.workers:
        rates = {side: [] for side in SIDES}
        for _ in range(min(2, args.repeats)):
            for side, (data, preprocessor) in sides.items():
                rates[side].append(run_epoch(data, preprocessor, args))
        for side in SIDES:
            result[side]["loader"] = statistics.median(rates[side])
    for side in SIDES:
        parts = result[side]
        # One core that does everything: what a machine without a GPU gets of it.
        parts["both"] = 1 / (1 / parts["worker"] + 1 / parts["device"])
        parts["cores"] = {
            f"{step:g}": math.ceil(step / parts["worker"]) for step in args.step
        }
    return result


def run_epoch(data: Dataset, preprocessor: torch.nn.Module, args) -> float:
    """Images/s from files to normalized views on the device, workers running."""
    warm_up = 2 * args.workers
    # Many times what the workers have ready when the clock starts.
    batches = max(args.batches, 8 * args.workers)
    size = min(args.batch, 64)
    loader = DataLoader(
        Repeated(data, (warm_up + batches) * size),
        size,
        num_workers=args.workers,
        collate_fn=default_collate,
        pin_memory=args.device.startswith("cuda"),
    )
    iterator = iter(loader)
    for _ in range(warm_up):
        preprocessor(next(iterator), True)

    def rest() -> None:
        for batch in iterator:
            preprocessor(batch, True)

    return batches * size / seconds(rest, args.device)


def measure_decoders(photos: list[Path], repeats: int) -> dict[str, dict]:
    """Of each decoder that is installed: images/s of one thread, and its pixels.

    Returns:
        dict[str, dict]: ``rate``, and ``difference``: the largest one from OpenCV's
        pixels, in gray levels.
    """
    contents = [photo.read_bytes() for photo in photos]
    decoders = {
        "cv2": lambda content: cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR
        ),
        "pillow": lambda content: np.asarray(
            Image.open(io.BytesIO(content)).convert("RGB")
        )[..., ::-1],
    }
    try:
        decoders["turbojpeg"] = importlib.import_module("turbojpeg").TurboJPEG().decode
    except (ImportError, RuntimeError):  # the package, or its C library
        print("turbojpeg is not installed and left out")
    try:
        decode = importlib.import_module("simplejpeg").decode_jpeg
        decoders["simplejpeg"] = partial(decode, colorspace="BGR")
    except ImportError:
        print("simplejpeg is not installed and left out")

    def decode_all(decode: Callable) -> None:
        for content in contents:
            decode(content)

    functions = {name: partial(decode_all, d) for name, d in decoders.items()}
    taken = medians(functions, repeats)
    first = {name: decode(contents[0]).astype(int) for name, decode in decoders.items()}
    return {
        name: {
            "rate": len(contents) / taken[name],
            "difference": int(np.abs(image - first["cv2"]).max()),
        }
        for name, image in first.items()
    }


def describe(images: torch.Tensor) -> torch.Tensor:
    """Of each image, what the transforms change, [n, 6]."""
    images = images.double().cpu()
    gray = images.mean(1)
    columns = [
        *images.mean((2, 3)).unbind(1),
        gray.std((1, 2)),
        gray.diff(dim=2).abs().mean((1, 2)),
        (images.amax(1) - images.amin(1)).mean((1, 2)),
    ]
    return torch.stack(columns, dim=1)


def compare_views(photos: list[Path], device: str, n: int = 600) -> list[dict]:
    """What MoCo v3's views, without the crops, do to the same images on both sides.

    Returns:
        list[dict]: Per view and statistic the mean changes in gray levels and how many
        standard errors lie between them.
    """
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    tiles = cut_tiles(photos, 64, n)
    images = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()
    _, mmcv_config, our_config, _ = CASES[0]
    multi_view = Config.fromfile(
        CONFIGS / mmcv_config
    ).train_dataloader.dataset.pipeline
    views = [Compose(view[1:]) for view in multi_view[1].transforms]
    cfg = Config.fromfile(CONFIGS / our_config).data_preprocessor
    ours = MODELS.build(cfg).to(device).augment([images.to(device)] * len(views))
    before, rows = describe(images), []
    for i, (view, batch) in enumerate(zip(views, ours, strict=True)):
        theirs = np.stack([view({"img": tile.copy()})["img"] for tile in tiles])
        theirs = torch.from_numpy(theirs).permute(0, 3, 1, 2)
        changes = [describe(side) - before for side in (theirs, batch)]
        means = [change.mean(0) for change in changes]
        error = sum(change.var(0) / n for change in changes).sqrt()
        errors = (means[1] - means[0]) / error
        for name, *row in zip(STATISTICS, *means, errors, strict=True):
            keys = ("MMCV", "gpu-aug", "standard_errors")
            values = [value.item() for value in row]
            rows.append(
                {
                    "view": i + 1,
                    "statistic": name,
                    **dict(zip(keys, values, strict=True)),
                }
            )
    return rows


def report(record: dict, args: argparse.Namespace) -> None:
    steps = [f"{step:g}" for step in args.step]
    print(
        f"\n{record['cpu']}, {record['cores']} cores usable, 1 thread; augmentation "
        f"on {record.get('gpu', 'the CPU')}\n\nimages/s (two views each); worker cores "
        f"for a GPU of so many images/s\n{'':32}{'worker core':>12}{'device':>10}"
        f"{'both':>8}"
        + ("loader".rjust(9) if args.workers else "")
        + "".join(f"{step + '/s':>9}" for step in steps)
    )
    for case in record["cases"]:
        for side in SIDES:
            parts = case[side]
            print(
                f"{case['name']:22}{side:10}{parts['worker']:12.0f}"
                f"{parts['device']:10.0f}{parts['both']:8.0f}"
                + (f"{parts['loader']:9.0f}" if args.workers else "")
                + "".join(f"{parts['cores'][step]:9d}" for step in steps)
            )
    print("\nJPEG decoding, images/s of one core; largest difference from OpenCV's")
    for name, decoder in record["decoders"].items():
        print(f"{name:12}{decoder['rate']:8.0f}{decoder['difference']:5d}")
    print(
        "\nmean change of the same images, gray levels; difference in standard errors"
    )
    for row in record["agreement"]:
        print(
            f"view {row['view']}  {row['statistic']:10}{row['MMCV']:9.2f}"
            f"{row['gpu-aug']:9.2f}{row['standard_errors']:7.1f}"
        )


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    warnings.filterwarnings("ignore", "Only use 'alpha'")
    init_default_scope("mmpretrain")
    torch.set_num_threads(1)  # a worker's
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if args.photos is None:
            (folder / "photos").mkdir()
            make_photos(folder / "photos", args.images)
        photos = sorted((args.photos or folder / "photos").glob("*.[jJ][pP]*[gG]"))
        if not photos:
            raise SystemExit(f"{args.photos} holds no JPEG files (--photos).")
        photos = photos[: args.images]
        args.images = len(photos)
        record = {
            **machine(args.device),
            **{key: getattr(args, key) for key in ("images", "batch", "repeats")},
            "workers": args.workers,
            "clock": "CPU time" if args.device == "cpu" else "wall clock on the device",
            "cases": [measure_case(case, photos, folder, args) for case in CASES],
            "decoders": measure_decoders(photos, args.repeats),
            "agreement": compare_views(photos, args.device),
        }
    report(record, args)
    write(args.out, record)
    print(f"\n{args.out}")
    far = [row for row in record["agreement"] if abs(row["standard_errors"]) > 4.5]
    if far:
        raise SystemExit(f"The augmentation differs from MMCV's: {far}")
    return record


if __name__ == "__main__":
    main()
