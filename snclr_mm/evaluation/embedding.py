import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from snclr_mm.datasets import (
    ImageFolder,
    LoadImage,
    find_test_pipeline,
    holds_rgb,
)

from .features import batch_features, check_finite


class PreparedImages(Dataset):
    """Images as a config's test pipeline prepares them.

    Args:
        images (Sequence): Paths; or RGB images, [H, W, 3], uint8, of NumPy or Pillow.
        cfg (Config): Of the model.

    Attributes:
        bgr (bool): The order of the prepared images' channels, as in training.
    """

    def __init__(self, images: Sequence[Any], cfg: Config) -> None:
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            self.pipeline = Compose(find_test_pipeline(cfg))
        self.images = images
        training = (cfg.get("train_dataloader") or {}).get("dataset") or {}
        self.bgr = not holds_rgb(training)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        image = self.images[index]
        if isinstance(image, str | os.PathLike):
            results = {"img_path": os.fspath(image)}
            if self.bgr:
                return self.pipeline(results)
            image = LoadImage()(results)["img"][..., ::-1]
        elif isinstance(image, Image.Image):
            if image.mode[0] in "IF":
                raise ValueError(
                    f"images[{index}] has Pillow's mode {image.mode}, more than 8 bits "
                    "per pixel: give the path of its file, or convert it."
                )
            image = ImageOps.exif_transpose(image).convert("RGB")  # as files are turned
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"images[{index}] is {image.dtype} {list(image.shape)}: arrays must be "
                "RGB, uint8 [H, W, 3]."
            )
        image = image[..., :: -1 if self.bgr else 1]
        return self.pipeline({"img": np.ascontiguousarray(image)})

    def batches(self, batch_size: int) -> DataLoader:
        """In order; read by other processes where there are many."""
        workers = min(8, len(os.sched_getaffinity(0)))
        return DataLoader(
            self,
            batch_size,
            num_workers=workers if len(self) > 4 * batch_size else 0,
            collate_fn=default_collate,
        )


def list_images(folder: str) -> list[str]:
    """Paths of the images below a folder that can be read, in order."""
    dataset = ImageFolder(data_root=str(folder), pipeline=[], skip_limit=1.0)
    return [dataset.get_data_info(row)["img_path"] for row in range(len(dataset))]


@torch.no_grad()
def embed(
    images: str | os.PathLike | Sequence[Any],
    checkpoint: str,
    config: str | None = None,
    batch_size: int = 64,
    device: str | None = None,
    trust: bool = False,
) -> Tensor:
    """Features of images: of the backbone, pooled, of length 1.

    Args:
        images (str | PathLike | Sequence): A folder, of which the images are those of
            :func:`list_images`; or paths; or RGB images, [H, W, 3], uint8, of NumPy or
            Pillow, of any size.
        checkpoint (str): A file that tools/train.py wrote; or a backbone alone, of
            tools/convert_checkpoint.py, which needs ``config``.
        config (str, optional): File of its config. Defaults to None: as the checkpoint
            tells, see :func:`load_model`.
        batch_size (int): Defaults to 64.
        device (str, optional): Defaults to a GPU if there is one.
        trust (bool): As for :func:`load_model`. Defaults to False.

    Returns:
        Tensor: [n, C], float32, on the CPU, one row per image, in order.

    Raises:
        UnreadableImageError: If one of the given paths is no image.
        ValueError: If there is no image or one of another kind, if a feature is not
            finite, or as :func:`load_model` says.
    """
    from snclr_mm.checkpoints.saved_model import load_model

    if isinstance(images, str | os.PathLike):
        images = list_images(images)
    if len(images) == 0:
        raise ValueError("images is an empty list: give one image or more.")
    model, cfg = load_model(checkpoint, config, trust)
    model.to(device or get_device())
    batches = PreparedImages(images, cfg).batches(batch_size)
    features = torch.cat([batch_features(model, batch)[0].cpu() for batch in batches])
    check_finite(features, str(checkpoint))
    return F.normalize(features, dim=1)
