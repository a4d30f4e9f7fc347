"""Which files of a folder are images that can be read, found before training."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.progress import track

#: Images with a shorter side than this hold nothing to learn from.
SMALLEST = 8
#: How a complete file ends; with another ending the whole image is decoded.
ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class ImageCheck(NamedTuple):
    """What :func:`check_images` found below a folder.

    Attributes:
        images (int): Files that can be read.
        skipped (dict[str, str]): Path of a file with an image's ending -> why it is
            not used.
        others (dict[str, int]): Number of other files, by ending; hidden ones apart.
        side (int): Median of the images' shorter sides, pixels.
    """

    images: int
    skipped: dict[str, str]
    others: dict[str, int]
    side: int

    def __str__(self) -> str:
        text = f"{self.images} images, shorter side {self.side} pixels (median)"
        reasons = [f"{n} {why}" for why, n in Counter(self.skipped.values()).items()]
        if reasons:
            text += f"; skipped: {', '.join(reasons)}"
        if self.others:
            others = ", ".join(f"{n} {kind}" for kind, n in self.others.items())
            text += f"; not images: {others}"
        return text


def check_images(root: str, extensions: Sequence[str]) -> ImageCheck:
    """Read the header of each image below a folder, in parallel.

    Files that do not end as their format does are decoded: they may be truncated. What
    was found is kept in the user's cache folder, and only files that have changed since
    are read again.

    Args:
        root (str): The folder, searched recursively, hidden folders excepted.
        extensions (Sequence[str]): Endings of image files, lower case.
    """
    images, others = {}, Counter()
    for folder, folders, files in os.walk(root, followlinks=True):
        others["hidden"] += sum(name.startswith(".") for name in folders)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = os.path.join(folder, name)
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                others["hidden"] += 1
            elif suffix not in extensions:
                others[suffix or "without ending"] += 1
            else:
                status = os.stat(path) if os.path.exists(path) else None
                images[path] = status and [status.st_size, status.st_mtime_ns]
    cache = _cache_file(root)
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    found = {path: known[path] for path in images if _same(known, path, images[path])}
    new = [path for path in images if path not in found]
    if new:
        with ThreadPoolExecutor(min(16, 4 * len(os.sched_getaffinity(0)))) as pool:
            results = pool.map(_check, new)
            progress = track(results, "checking images", len(new), transient=True)
            for path, result in zip(new, progress, strict=True):
                found[path] = [*(images[path] or [0, 0]), *result]
        _write(cache, found)
    sides = [side for *_, side, why in found.values() if why is None]
    return ImageCheck(
        len(sides),
        {path: why for path, (*_, why) in sorted(found.items()) if why is not None},
        dict((+others).most_common()),
        int(np.median(sides)) if sides else 0,
    )


def _check(path: str) -> tuple[int, str | None]:
    """Shorter side, and what is wrong, of one image."""
    try:
        if not os.path.exists(path):
            return 0, "broken links"
        if not os.path.getsize(path):
            return 0, "empty"
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # of huge images: they are the user's own
            side = min(image.size)
            if side < SMALLEST:
                return side, f"smaller than {SMALLEST} pixels"
            if image.format == "TIFF" and image.mode in ("F", "I"):
                return side, "of 32 bits per pixel"  # OpenCV does not read them
            ending = ENDINGS.get(image.format)
            if ending and ending not in _last_bytes(path):
                image.load()
            return side, None
    except Exception as error:  # Pillow's decoders raise anything
        is_image = not isinstance(error, Image.UnidentifiedImageError)
        return 0, "truncated or damaged" if is_image else "not an image"


def _last_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
        return file.read()


def _same(known: dict, path: str, status: list) -> bool:
    return path in known and known[path][:2] == status


def _cache_file(root: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(os.path.abspath(root).encode()).hexdigest()[:24]
    return folder / "snclr_mm" / f"images-{name}.json"


def _write(path: Path, content: dict) -> None:
    """At once or not at all; a folder that cannot be written costs only time."""
    part = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content))
        part.replace(path)
