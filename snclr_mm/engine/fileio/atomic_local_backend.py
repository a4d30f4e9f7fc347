import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

PART = ".part"


@register_backend("local", force=True, prefixes="")
class AtomicLocalBackend(LocalBackend):
    """MMEngine's backend for local files, whose checkpoints are whole or not there.

    A checkpoint is written under another name in the same folder, forced to the disk,
    and then renamed. So whatever happens meanwhile, the file of that name is either the
    one from before or the new one. Other files, as pictures, are written as always.

    It takes the place of MMEngine's own: runners, strategies and hooks use it without a
    setting.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file.

        Args:
            obj (bytes): Content.
            filepath (str | Path): Its folder is made if it is not there.

        Raises:
            OSError: If the disk is full or the folder read-only; what was there before
                is unchanged.
        """
        path = Path(filepath)
        if path.suffix != ".pth" and path.name != "last_checkpoint":
            super().put(obj, filepath)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + PART)
        try:
            with open(part, "wb") as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
