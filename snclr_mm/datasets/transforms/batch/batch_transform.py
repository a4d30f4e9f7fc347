from abc import ABC, abstractmethod

import torch
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor


class BatchTransform(ABC):
    """A transform of MMCV's or MMPretrain's pipelines for a batch on its device.

    Each image draws for itself, from a CPU generator: the same seed gives the same
    draws on any device, and the host knows which images change without waiting for the
    device.

    Attributes:
        prob (float): The probability for an image to be changed.
    """

    prob = 1.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change some of the images.

        Args:
            images (Tensor): [n, 3, H, W], uint8, BGR as MMCV loads them; not changed.
            generator (torch.Generator): On the CPU.

        Returns:
            Tensor: [n, 3, H, W], uint8.
        """
        chosen = torch.rand(len(images), generator=generator) < self.prob
        index = chosen.nonzero().flatten()
        if len(index) == 0:
            return images
        if len(index) == len(images):
            return self.apply(images, generator)
        index = to_device(index, images.device)
        changed = self.apply(images.index_select(0, index), generator)
        return images.index_copy(0, index, changed)

    @abstractmethod
    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change all of the images; see ``__call__``."""


def build_transforms(transforms: list[dict], key: str) -> list[BatchTransform]:
    """Build transforms from the configs that a pipeline on the CPU has.

    Args:
        transforms (list[dict]): ``type`` and what MMCV's or MMPretrain's transform of
            this name takes.
        key (str): Of the config, for errors.

    Raises:
        ValueError: If there is no such transform for batches.
    """
    built = []
    for i, cfg in enumerate(transforms):
        cls = BATCH_AUGMENTS.get(cfg["type"])
        if not (isinstance(cls, type) and issubclass(cls, BatchTransform)):
            known = sorted(
                name
                for name, cls in BATCH_AUGMENTS.module_dict.items()
                if issubclass(cls, BatchTransform)
            )
            raise ValueError(
                f"{key}[{i}].type={cfg['type']!r} does not work on batches: use one of "
                f"{', '.join(known)}, or leave it in train_dataloader.dataset.pipeline."
            )
        built.append(BATCH_AUGMENTS.build(cfg))
    return built


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU; the host does not wait for a GPU."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply each image from both sides, and round.

    Args:
        images (Tensor): [n, 3, H, W], uint8.
        rows (Tensor): [n, h, H], float32; each row sums to 1.
        columns (Tensor): [n, w, W], float32; each row sums to 1.

    Returns:
        Tensor: [n, 3, h, w], uint8: rows · image · columnsᵀ.
    """
    n, channels, height, width = images.shape
    # Channels beside the rows, so that n products of matrices are enough.
    images = images.float().reshape(n, channels * height, width)
    images = images.bmm(columns.mT).view(n, channels, height, -1)
    images = images.transpose(2, 3).reshape(n, -1, height)
    images = images.bmm(rows.mT).add_(0.5).to(torch.uint8)
    return images.view(n, channels, -1, rows.shape[1]).transpose(2, 3).contiguous()
