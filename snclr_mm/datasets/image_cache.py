import errno
import fcntl
import hashlib
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from PIL import Image
from rich.progress import track

#: Image files whose headers are read to estimate the size.
SAMPLE = 500


class ImageCache:
    """Decoded images in one memory-mapped file, shared by all processes of a machine.

    The first process that needs them decodes all images; the others wait, and later
    runs find the file. Its name depends on the paths, sizes and times of change of the
    images: after a change a new one is written, and where its index does not fit it, it
    is written again. Each image has a checksum. No file is ever deleted: remove the
    folder when it is no longer needed.

    Args:
        paths (Sequence[str]): The image files.
        load (Callable[[str], np.ndarray]): path -> decoded image, [H, W, 3], uint8.
        folder (str): Where the file goes, on a fast local disk or in memory
            (``/dev/shm``); made if it does not exist.
        description (str): What else the decoded images depend on. Defaults to "".

    Raises:
        ValueError: If the images are not files of this machine, or not decoded to
            [H, W, 3], uint8.
        OSError: If the decoded images do not fit in the folder.
    """

    def __init__(
        self,
        paths: Sequence[str],
        load: Callable[[str], np.ndarray],
        folder: str,
        description: str = "",
    ) -> None:
        remote = next((path for path in paths if "://" in str(path)), None)
        if remote is not None:
            raise ValueError(
                f"The image {remote!r} is not a file of this machine, so its changes "
                "could not be noticed: leave dataset.cache_dir out."
            )
        self.file = Path(folder) / f"{_fingerprint(paths, description)}.images"
        self.index_file = self.file.with_suffix(".npy")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._index = self._read_index(len(paths))
        if self._index is None:
            # The folder may be everybody's: a link there may lead to any file.
            with open(
                self.file.with_suffix(".lock"), "a", opener=_open_no_link
            ) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._index = self._read_index(len(paths))
                if self._index is None:
                    self._write(paths, load)
                    self._index = self._read_index(len(paths))
        self._bytes = None

    def __getitem__(self, row: int) -> np.ndarray:
        """A copy of image ``row``, [H, W, 3], uint8."""
        if self._bytes is None:
            self._bytes = np.memmap(self.file, np.uint8, "r")
        start, height, width, checksum = self._index[row]
        image = self._bytes[start : start + height * width * 3]
        if zlib.crc32(image) != checksum:
            raise ValueError(
                f"Image {row} of {str(self.file)!r} is not what was decoded: the file "
                "was altered, or its disk fails. Delete it (config key "
                "dataset.cache_dir)."
            )
        return np.array(image).reshape(height, width, 3)

    def __getstate__(self) -> dict:
        # A pickled memory map would be the images themselves; workers map the file.
        return {**self.__dict__, "_bytes": None}

    def _read_index(self, images: int) -> np.ndarray | None:
        """Start, height, width and checksum of each image, if they fit the file."""
        try:
            index = np.load(self.index_file)
            size = self.file.stat().st_size
        except (OSError, ValueError, EOFError, MemoryError):
            return None
        if index.shape != (images, 4) or index.dtype != np.int64:
            return None
        ends = np.cumsum(3 * index[:, 1] * index[:, 2])
        fits = (index[:, 1:] >= 0).all() and (index[1:, 0] == ends[:-1]).all()
        return index if fits and size == (ends[-1] if images else 0) else None

    def _write(self, paths: Sequence[str], load: Callable) -> None:
        self._check_space(paths)
        index, start = [], 0
        temporary = self.file.with_suffix(".tmp")
        try:
            temporary.unlink(missing_ok=True)
            with open(temporary, "xb") as file:
                images = _load_in_order(paths, load)
                for image in track(images, "decoding", len(paths), transient=True):
                    _check_image(image)
                    height, width = image.shape[:2]
                    image = np.ascontiguousarray(image)
                    index.append((start, height, width, zlib.crc32(image)))
                    start += file.write(image.data)
            self.index_file.unlink(missing_ok=True)
            # It is renamed last, so that it is there only when it is complete.
            temporary.rename(self.file)
            with open(temporary, "xb") as file:
                np.save(file, np.array(index, dtype=np.int64).reshape(-1, 4))
            temporary.rename(self.index_file)
        finally:
            temporary.unlink(missing_ok=True)
        message = f"Decoded {len(paths)} images, {start / 1e9:.3f} GB: {self.file}"
        print_log(message, "current")

    def _check_space(self, paths: Sequence[str]) -> None:
        needed = estimate_bytes(paths)
        free = shutil.disk_usage(self.file.parent).free
        if needed > 0.95 * free:
            raise OSError(
                f"The {len(paths)} decoded images need about {needed / 1e9:.1f} GB, "
                f"and {str(self.file.parent)!r} has {free / 1e9:.1f} GB left: choose "
                "another dataset.cache_dir, or leave it out, which decodes in each "
                "epoch."
            )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > memory / 2:
            print_log(
                f"The decoded images, about {needed / 1e9:.1f} GB, are more than half "
                f"of the memory ({memory / 1e9:.1f} GB) and may be read from the disk "
                "again and again: if that is slow, leave dataset.cache_dir out.",
                "current",
                logging.WARNING,
            )


def estimate_bytes(paths: Sequence[str]) -> int:
    """Bytes of all decoded images, from the headers of some."""
    some = paths[:: -(-len(paths) // SAMPLE)] if paths else []
    total = 0
    for path in some:
        try:
            with Image.open(path) as image:
                total += 3 * image.width * image.height
        except OSError:
            continue  # decoding will say which image can't be read
    return round(total / max(1, len(some)) * len(paths))


def _open_no_link(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(
            f"{path!r} is a link, which this program did not make: remove it, or "
            "choose another dataset.cache_dir."
        ) from None


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"An image was decoded to {image.dtype} {list(image.shape)}, and only "
            "uint8 [H, W, 3] can be kept: leave to_float32 and color_type out of "
            "LoadImage, or dataset.cache_dir."
        )


def _fingerprint(paths: Sequence[str], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue  # loading will say which image is missing
        entry = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
        digest.update(repr(entry).encode())
    return digest.hexdigest()[:24]


def _load_in_order(paths: Sequence[str], load: Callable) -> Iterator[np.ndarray]:
    """Decode in threads, a part at a time: OpenCV and Pillow release the GIL."""
    threads = min(16, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), 64 * threads):
            yield from pool.map(load, paths[start : start + 64 * threads])
