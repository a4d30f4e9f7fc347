#!/usr/bin/env python
"""Put Fashion-MNIST (60,000 + 10,000 images, 28 x 28) where the small configs read it.

Takes the first that works: the files are already there; the Debian or Ubuntu package
dataset-fashion-mnist, installed or fetched with apt (nothing is installed, no root
needed); MMPretrain's own download.
"""

import argparse
import gzip
import hashlib
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "dataset-fashion-mnist"
FOLDER = Path("usr/share/datasets/fashion-mnist")
# SHA-256 of the unpacked files, as published.
FILES = {
    "train-images-idx3-ubyte": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
HELP = """Fashion-MNIST could not be had: {error}
Any one of these gets it:
  - on Debian or Ubuntu: apt-get install dataset-fashion-mnist, then run this again;
  - with access to the internet: run this again (MMPretrain downloads it);
  - by hand: put the four files {files}
    of https://github.com/zalandoresearch/fashion-mnist, .gz or unpacked, in {root}."""


def prepare(root: Path, system: Path = Path("/")) -> str:
    """Make sure that ``root`` holds the four files, intact; returns their origin.

    The Debian package is looked for below ``system``. Raises FileNotFoundError, which
    names all ways, if there is none, and ValueError if a file is not the published one.
    """
    root.mkdir(parents=True, exist_ok=True)
    origin = (
        (_unpack(root, root) and "already there")
        or (_unpack(system / FOLDER, root) and f"Debian package {PACKAGE}")
        or (_fetch_with_apt(root) and f"Debian package {PACKAGE}, fetched with apt")
        or _download(root)
    )
    for file, expected in FILES.items():
        digest = hashlib.sha256((root / file).read_bytes()).hexdigest()
        if digest != expected:
            raise ValueError(
                f"{root / file} is not the published file (SHA-256 {digest}, expected "
                f"{expected}): delete it and run this again."
            )
    return origin


def _unpack(source: Path, root: Path) -> bool:
    """Unpack what ``root`` lacks from the .gz files in ``source``: is it complete?"""
    for file in FILES:
        archive = source / f"{file}.gz"
        if not (root / file).exists() and archive.exists():
            part = root / f"{file}.part"
            with gzip.open(archive) as stream, part.open("wb") as out:
                shutil.copyfileobj(stream, out)
            part.rename(root / file)
    return all((root / file).exists() for file in FILES)


def _fetch_with_apt(root: Path) -> bool:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        # Lists and cache of our own: nothing of the system changes.
        (Path(folder) / "lists/partial").mkdir(parents=True)
        apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists"]
        apt += ["-o", f"Dir::Cache={folder}", "-o", "APT::Sandbox::User=root"]
        try:
            for command in (
                [*apt, "update"],
                [*apt, "download", PACKAGE],
                ["sh", "-c", f"dpkg-deb -x {PACKAGE}_*.deb ."],
            ):
                subprocess.run(
                    command, cwd=folder, check=True, capture_output=True, timeout=300
                )
        except (subprocess.SubprocessError, OSError):
            return False
        return _unpack(Path(folder) / FOLDER, root)


def _download(root: Path) -> str:
    import snclr_mm  # noqa: F401  (first: it makes mmpretrain importable)

    # isort: split
    from mmpretrain.datasets import FashionMNIST

    socket.setdefaulttimeout(60)
    try:
        FashionMNIST(data_root=str(root))
    except Exception as error:  # whatever a network can raise
        raise FileNotFoundError(
            HELP.format(error=error, files=", ".join(FILES), root=root)
        ) from error
    return "downloaded by MMPretrain"


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
