#!/usr/bin/env python
"""Put Fashion-MNIST (60,000 + 10,000 images, 28 x 28) where the small configs read it.

Takes the first that works: the files are already there; the Debian or Ubuntu package
dataset-fashion-mnist; MMPretrain's own download.
"""

import argparse
import gzip
import hashlib
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

PACKAGE = Path("/usr/share/datasets/fashion-mnist")
# Of the unpacked files, as published.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
HELP = """Fashion-MNIST could not be had: {error}
Any one of these gets it:
  - on Debian or Ubuntu: apt-get install dataset-fashion-mnist, then run this again;
  - with access to the internet: run this again (MMPretrain downloads it);
  - by hand: put the four files {files}
    of https://github.com/zalandoresearch/fashion-mnist, .gz or unpacked, in {root}."""


def prepare(root: Path, package: Path = PACKAGE) -> str:
    """Make sure that ``root`` holds the four unpacked files, intact.

    Args:
        root (Path): Folder, made if it does not exist.
        package (Path): Where the Debian package keeps its .gz files.

    Returns:
        str: Where they came from.

    Raises:
        FileNotFoundError: If there is no way to get them, naming all ways.
        ValueError: If a file is not the published one.
    """
    root.mkdir(parents=True, exist_ok=True)
    for source, name in (
        (root, "already there"),
        (package, f"unpacked from {package}"),
    ):
        for file in SHA256:
            archive = source / f"{file}.gz"
            if not (root / file).exists() and archive.exists():
                _unpack(archive, root / file)
        if all((root / file).exists() for file in SHA256):
            break
    else:
        name = "downloaded"
        _download(root)
    for file, expected in SHA256.items():
        digest = hashlib.sha256((root / file).read_bytes()).hexdigest()
        if digest != expected:
            raise ValueError(
                f"{root / file} is not the published file (SHA-256 {digest}, expected "
                f"{expected}): delete it and run this again."
            )
    return name


def _unpack(archive: Path, target: Path) -> None:
    part = target.with_suffix(".part")
    with gzip.open(archive) as source, part.open("wb") as out:
        shutil.copyfileobj(source, out)
    part.rename(target)


def _download(root: Path) -> None:
    from mmpretrain.datasets import FashionMNIST

    import snclr_mm  # noqa: F401  (makes mmpretrain importable on CPU-only stacks)

    try:
        FashionMNIST(data_root=str(root))
    except Exception as error:  # whatever a network can raise
        raise FileNotFoundError(
            HELP.format(error=error, files=", ".join(SHA256), root=root)
        ) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", default="data/fashion-mnist", type=Path)
    root = parser.parse_args().root
    try:
        origin = prepare(root)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"Fashion-MNIST is in {root} ({origin}).")


if __name__ == "__main__":
    main()
