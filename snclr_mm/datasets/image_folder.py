import errno
import logging
from pathlib import Path

from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from .image_cache import ImageCache
from .image_check import ImageCheck, check_images
from .transforms.load_image import LoadImage, UnreadableImageError

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif")
EXTENSIONS += (".tiff", ".gif", ".ppm", ".pgm")


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images below a folder, without labels: one's own data for pretraining.

    CustomDataset with ``with_label=False`` as default, clear errors and, for small
    images, the choice to decode them once and for all; see :class:`ImageCache`.

    Args:
        data_root (str): The folder, searched recursively; hidden files and folders are
            left out.
        with_label (bool): True takes the names of the sub-folders as classes.
            Defaults to False.
        extensions (Sequence[str]): Of the files to take, lower case.
        skip_limit (float, optional): Read the header of each image first, see
            :func:`check_images`, and leave out those that cannot be read, up to this
            share of all. An image that turns out later to be unreadable is replaced by
            another one, and named in the log. Defaults to None: nothing is read first,
            and an unreadable image ends the run.
        cache_dir (str, optional): Where to keep decoded images. Defaults to None,
            which decodes them in each epoch.
        kwargs: As for CustomDataset.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no image, links in a circle, or more unreadable images
            than ``skip_limit`` allows; if there is a ``cache_dir`` but nothing to load
            images with.
        OSError: If the decoded images do not fit into ``cache_dir``.
    """

    def __init__(
        self,
        data_root: str = "",
        with_label: bool = False,
        extensions=EXTENSIONS,
        skip_limit: float | None = None,
        cache_dir: str | None = None,
        **kwargs,
    ) -> None:
        self.skip_limit = skip_limit
        self.check: ImageCheck | None = None
        self._unreadable: set[str] = set()
        self.cache_dir = cache_dir
        self.cache: ImageCache | None = None
        super().__init__(
            data_root=data_root, with_label=with_label, extensions=extensions, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """List the images; see CustomDataset."""
        root = self.img_prefix
        if "://" not in root and not Path(root).is_dir():
            raise FileNotFoundError(
                f"The image folder {root!r} does not exist (config key "
                "dataset.data_root, plus data_prefix if set)."
            )
        try:
            data_list = super().load_data_list()
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ValueError(
                f"Links below the image folder {root!r} go round in a circle: "
                f"{error.filename}."
            ) from None
        except RuntimeError as error:
            raise ValueError(
                f"The image folder {root!r} holds no image: allowed are "
                f"{', '.join(sorted(self.extensions))} (config keys dataset.data_root "
                "and dataset.extensions)."
            ) from error
        data_list = [info for info in data_list if not self._is_hidden(info)]
        if self.with_label and not self.ann_file:
            shown = tuple(name for name in self.CLASSES if not name.startswith("."))
            for info in data_list:
                info["gt_label"] = shown.index(self.CLASSES[info["gt_label"]])
            self._metainfo["classes"] = shown
        if self.skip_limit is not None:
            self.check = check_images(root, self.extensions)
            skipped = {Path(path) for path in self.check.skipped}
            data_list = [i for i in data_list if Path(i["img_path"]) not in skipped]
            self._check_limit()
        if self.cache_dir is not None:
            self._fill_cache([info["img_path"] for info in data_list])
            for row, info in enumerate(data_list):
                info["cache_row"] = row  # subsets keep it
        return data_list

    def prepare_data(self, idx: int):
        """Run the pipeline; it gets the decoded image if there is a cache.

        None, for which MMEngine takes another image, where ``skip_limit`` allows it.
        """
        if self.cache is None:
            try:
                return super().prepare_data(idx)
            except UnreadableImageError as error:
                if self.skip_limit is None:
                    raise
                path = self.get_data_info(idx)["img_path"]
                if path not in self._unreadable:
                    self._unreadable.add(path)
                    # Other ranks than the first log errors alone.
                    print_log(f"Skipped: {error}", "current", logging.ERROR)
                self._check_limit()
                return None
        info = self.get_data_info(idx)
        info["img"] = self.cache[info.pop("cache_row")]
        return self.pipeline(info)

    def _is_hidden(self, info: dict) -> bool:
        path = info["img_path"].removeprefix(self.img_prefix)
        return any(part.startswith(".") for part in path.split("/"))

    def _check_limit(self) -> None:
        skipped = {**self.check.skipped, **dict.fromkeys(self._unreadable, "damaged")}
        total = self.check.images + len(self.check.skipped)
        if len(skipped) > self.skip_limit * total or not self.check.images:
            some = [f"{path} ({why})" for path, why in list(skipped.items())[:5]]
            raise ValueError(
                f"{len(skipped)} of {total} images in {self.img_prefix!r} cannot be "
                f"read, more than dataset.skip_limit={self.skip_limit:g} allows: "
                f"{', '.join(some)}{', ...' * (len(skipped) > 5)}."
            )

    def _fill_cache(self, paths: list[str]) -> None:
        steps = self.pipeline.transforms
        load = steps[0] if steps else None
        if not isinstance(load, LoadImage):
            raise ValueError(
                f"dataset.cache_dir={self.cache_dir!r} needs a pipeline that begins "
                f"with LoadImage, not {type(load).__name__} (config key "
                "dataset.pipeline)."
            )
        self.cache = ImageCache(
            paths,
            lambda path: load({"img_path": path})["img"],
            self.cache_dir,
            description=repr(load),
        )
