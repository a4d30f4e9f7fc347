import errno
from pathlib import Path

from mmcv.transforms import LoadImageFromFile
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from .image_cache import ImageCache


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images below a folder, without labels: one's own data for pretraining.

    CustomDataset with ``with_label=False`` as default, clear errors and, for small
    images, the choice to decode them once and for all; see :class:`ImageCache`.

    Args:
        data_root (str): The folder, searched recursively.
        with_label (bool): True takes the names of the sub-folders as classes.
            Defaults to False.
        extensions (Sequence[str]): Of the files to take, lower case.
        cache_dir (str, optional): Where to keep decoded images. Defaults to None,
            which decodes them in each epoch.
        kwargs: As for CustomDataset.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no image, or links in a circle; if there is a
            ``cache_dir`` but nothing to load images with.
        OSError: If the decoded images do not fit into ``cache_dir``.
    """

    def __init__(
        self,
        data_root: str = "",
        with_label: bool = False,
        extensions=(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".webp"),
        cache_dir: str | None = None,
        **kwargs,
    ) -> None:
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
        if self.cache_dir is not None:
            self._fill_cache([info["img_path"] for info in data_list])
            for row, info in enumerate(data_list):
                info["cache_row"] = row  # subsets keep it
        return data_list

    def prepare_data(self, idx: int):
        """Run the pipeline; it gets the decoded image if there is a cache."""
        if self.cache is None:
            return super().prepare_data(idx)
        info = self.get_data_info(idx)
        info["img"] = self.cache[info.pop("cache_row")]
        return self.pipeline(info)

    def _fill_cache(self, paths: list[str]) -> None:
        steps = self.pipeline.transforms
        load = steps[0] if steps else None
        if not isinstance(load, LoadImageFromFile):
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
