from abc import ABC, abstractmethod

import torch
from mmcv.transforms import BaseTransform, RandomApply
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from snclr_mm.hardware import to_device


class BatchTransform(ABC):
    """A transform of MMCV's or MMPretrain's pipelines for a batch on its device.

    Each image draws for itself, from a CPU generator: the same seed gives the same
    draws on any device, and the host knows which images change without waiting for the
    device.

    Args:
        options (BaseTransform): The transform of single images, built from the same
            arguments. Its ``prob`` is the probability for an image to be changed.

    Raises:
        ValueError: If it has options that do not work on batches.
    """

    def __init__(self, options: BaseTransform) -> None:
        self.options = options
        self.prob = getattr(options, "prob", 1.0)

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

    @staticmethod
    def _refuse(given: str, advice: str) -> None:
        raise ValueError(
            f"{given} does not work on batches: {advice} (config key "
            "data_preprocessor.transforms)."
        )


@BATCH_AUGMENTS.register_module(name="RandomApply")
class BatchRandomApply(BatchTransform):
    """MMCV's RandomApply: some images get all of the transforms, the others none.

    Args:
        transforms (list[dict] | dict): Configs of batch transforms.
        prob (float): Probability. Defaults to 0.5.
    """

    def __init__(self, transforms: list[dict] | dict, prob: float = 0.5) -> None:
        super().__init__(RandomApply([], prob))
        transforms = [transforms] if isinstance(transforms, dict) else transforms
        self.transforms = build_transforms(transforms, "RandomApply.transforms")

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        for transform in self.transforms:
            images = transform(images, generator)
        return images


def build_transforms(transforms: list[dict], key: str) -> list[BatchTransform]:
    """Build transforms from the configs that a pipeline on the CPU has.

    Args:
        transforms (list[dict]): ``type`` and what MMCV's or MMPretrain's transform of
            this name takes.
        key (str): Of the config, for errors.

    Raises:
        ValueError: If there is no such transform for batches.
    """
    known = {
        name: cls
        for name, cls in sorted(BATCH_AUGMENTS.module_dict.items())
        if issubclass(cls, BatchTransform)
    }
    for i, cfg in enumerate(transforms):
        if BATCH_AUGMENTS.get(cfg["type"]) not in known.values():
            raise ValueError(
                f"{key}[{i}].type={cfg['type']!r} does not work on batches: use one of "
                f"{', '.join(known)}, or leave it in train_dataloader.dataset.pipeline."
            )
    return [BATCH_AUGMENTS.build(cfg) for cfg in transforms]


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
