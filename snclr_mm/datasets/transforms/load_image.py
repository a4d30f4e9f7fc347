import mmcv
from mmcv.transforms import LoadImageFromFile
from mmpretrain.registry import TRANSFORMS


class UnreadableImageError(ValueError):
    """An image file is missing or can't be decoded."""


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """LoadImageFromFile for mixed sources, with errors that name the file.

    Images that the dataset holds in memory (``results['img']``, as MNIST and CIFAR have
    them) pass through; one-channel ones get three equal channels. So the same pipeline
    serves them and folders of image files.

    Args:
        kwargs: As for LoadImageFromFile, except ``ignore_empty``: an unreadable file
            always raises, because MMEngine would silently take another image.

    Raises:
        UnreadableImageError: If a file is missing or can't be decoded, naming it.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(ignore_empty=False, **kwargs)

    def transform(self, results: dict) -> dict:
        """Fill ``img`` (uint8, [H, W, 3]), ``img_shape`` and ``ori_shape``."""
        if "img" not in results:
            try:
                return super().transform(results)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UnreadableImageError(
                    f"The image {results['img_path']!r} can't be read ({reason}): "
                    "repair it or take it out of the dataset (config key "
                    "dataset.data_root or ann_file of the dataloader), or let "
                    "ImageFolder skip such files (dataset.skip_limit)."
                ) from error
        if results["img"].ndim == 2:
            results["img"] = mmcv.gray2bgr(results["img"])
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results
