from pathlib import Path

from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images below a folder, without labels: one's own data for pretraining.

    CustomDataset with ``with_label=False`` as default and clear errors.

    Args:
        data_root (str): The folder, searched recursively.
        with_label (bool): True takes the names of the sub-folders as classes.
            Defaults to False.
        extensions (Sequence[str]): Of the files to take, lower case.
        kwargs: As for CustomDataset.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no image.
    """

    def __init__(
        self,
        data_root: str = "",
        with_label: bool = False,
        extensions=(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".webp"),
        **kwargs,
    ) -> None:
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
            return super().load_data_list()
        except RuntimeError as error:
            raise ValueError(
                f"The image folder {root!r} holds no image: allowed are "
                f"{', '.join(sorted(self.extensions))} (config keys dataset.data_root "
                "and dataset.extensions)."
            ) from error
