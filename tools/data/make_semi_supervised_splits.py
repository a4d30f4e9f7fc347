#!/usr/bin/env python
"""Write the labeled 1 % and 10 % of a dataset as fixed annotation files.

DATA is a folder with one sub-folder per class, or a config whose train_dataloader has
labels. The files hold a line per image: its path (as MMPretrain's ann_file) or, where
the images are not files, its index (for LabeledSubset), and its class.

The images are those of published lists:

  make_semi_supervised_splits.py data/imagenet/train data/imagenet/meta --lists \\
    https://raw.githubusercontent.com/google-research/simclr/master/imagenet_subsets/1percent.txt

or else drawn, as many of each class: of n images floor(n x percent / 100) are taken, of
each class those whose SHA-256 of "seed/path" (or "seed/index") is smallest. Where that
number is no multiple of the number of classes, the images with the smallest digests
among the classes' next ones fill it up. This depends on no library or version, and 1 %
is part of 10 %.
"""

import argparse
import hashlib
import sys
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", help="image folder or config")
    add("out", type=Path, help="folder for train_{1,10}percent.txt")
    add(
        "--lists",
        nargs="+",
        help="files or URLs with an image name per line; NAME.txt gives train_NAME.txt",
    )
    add("--percent", nargs="+", type=float, default=[1, 10])
    add("--seed", type=int, default=0, help="of the draw")
    add(
        "--cfg-options", nargs="+", type=pair, default=[], metavar="KEY=VALUE",
        help="of the config",
    )  # fmt: skip
    return parser.parse_args(argv)


def pair(option: str) -> tuple[str, str]:
    """Key and value of an option."""
    key, sign, value = option.partition("=")
    if not (key and sign):
        raise argparse.ArgumentTypeError(f"{option} must be key=value")
    return key, value


if __name__ == "__main__":
    parse_args()  # --help needs none of the libraries below

import snclr_mm  # noqa: F401  (first: it makes mmpretrain importable)

# isort: split
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from snclr_mm.cli import find_config


def read_labels(data: str, options: dict | None = None) -> dict[str, int]:
    """The class of each image, by its path or, where images are not files, its index.

    Raises ValueError if the images have no labels, or a class has no image.
    """
    if data.endswith(".py"):
        cfg = Config.fromfile(find_config(data))
        cfg.merge_from_dict(options or {})
        init_default_scope("mmpretrain")
        dataset = DATASETS.build({**cfg.train_dataloader.dataset, "pipeline": []})
    else:
        dataset = CustomDataset(data_prefix=data)
    labels = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if "gt_label" not in info:
            raise ValueError(
                f"{data}: the images of a {type(dataset).__name__} have no labels. "
                "Give a folder with one sub-folder per class, or a labeled dataset."
            )
        key = str(index)
        if "img_path" in info:
            key = Path(info["img_path"]).relative_to(dataset.img_prefix).as_posix()
        labels[key] = int(info["gt_label"])
    present = set(labels.values())
    missing = [c for i, c in enumerate(dataset.CLASSES or []) if i not in present]
    if missing:
        raise ValueError(
            f"{data} has no image of {len(missing)} classes, first {missing[0]!r}."
        )
    return labels


def draw(labels: dict[str, int], percent: float, seed: int = 0) -> list[str]:
    """Draw a class-balanced share of a dataset, as described above.

    Raises ValueError if that is more than all, less than one of each class, or more
    than a class has.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"--percent {percent:g}: must be above 0 and at most 100.")
    classes = defaultdict(list)
    for key, label in labels.items():
        classes[label].append(key)
    total = int(len(labels) * percent // 100)
    share, extra = divmod(total, len(classes))
    if share == 0:
        raise ValueError(
            f"--percent {percent:g} of {len(labels)} images are {total}, but there are "
            f"{len(classes)} classes: some would be missing."
        )
    for label, keys in classes.items():
        if len(keys) < share:
            raise ValueError(
                f"--percent {percent:g} takes {share} images of each class, but class "
                f"{label} has {len(keys)}."
            )

    def digest(key: str) -> str:
        return hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()

    ranked = [sorted(keys, key=digest) for keys in classes.values()]
    drawn = [key for keys in ranked for key in keys[:share]]
    following = [key for keys in ranked for key in keys[share : share + 1]]
    if extra > len(following):
        raise ValueError(
            f"--percent {percent:g} takes {share} or {share + 1} images of each class, "
            f"but only {len(following)} classes have more than {share}."
        )
    return drawn + sorted(following, key=digest)[:extra]


def find(labels: dict[str, int], names: list[str], source: str) -> list[str]:
    """Find the images that a list names, by path or by a file name that is unique.

    Raises ValueError if an image is not there, is named twice or by an ambiguous file
    name, or if a class has no image.
    """
    if len(names) > len(labels):
        raise ValueError(
            f"{source} lists {len(names)} images, the dataset has {len(labels)}."
        )
    by_name = defaultdict(list)
    for key in labels:
        by_name[Path(key).name].append(key)
    found = {
        name: [name] if name in labels else by_name.get(name, []) for name in names
    }
    counts = Counter(key for name in names for key in found[name])
    for problem, bad in {
        "not in the dataset": [n for n, keys in found.items() if not keys],
        "the file name of several": [n for n, keys in found.items() if len(keys) > 1],
        "listed twice": [key for key, count in counts.items() if count > 1],
    }.items():
        if bad:
            raise ValueError(
                f"{source}: {len(bad)} of {len(names)} images are {problem}, first "
                f"{', '.join(bad[:3])}."
            )
    keys = list(counts)
    missing = sorted(set(labels.values()) - {labels[key] for key in keys})
    if missing:
        raise ValueError(
            f"{source} lists no image of {len(missing)} classes, first {missing[:3]}."
        )
    return keys


def write(path: Path, keys: list[str], labels: dict[str, int]) -> str:
    """Write an annotation file, ordered by class and name; returns what to print."""
    lines = sorted(
        (labels[key], int(key) if key.isdecimal() else 0, key) for key in keys
    )
    text = "".join(f"{key} {label}\n" for label, _, key in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    classes = len({labels[key] for key in keys})
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{path}: {len(keys)} images of {classes} classes, SHA-256 {digest}"


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        options = {k: DictAction._parse_iterable(v) for k, v in args.cfg_options}
        labels = read_labels(args.data, options)
        splits = {}
        for source in args.lists or []:
            url = source if "://" in source else Path(source).resolve().as_uri()
            with urllib.request.urlopen(url) as stream:
                names = stream.read().decode().splitlines()
            names = [name.strip() for name in names if name.strip()]
            splits[f"train_{Path(source).stem}.txt"] = find(labels, names, source)
        if not args.lists:
            for percent in args.percent:
                name = f"train_{percent:g}percent.txt"
                splits[name] = draw(labels, percent, args.seed)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    for name, keys in splits.items():
        print(write(args.out / name, keys, labels))


if __name__ == "__main__":
    main()
