import math

import numpy as np
import torch
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from snclr_mm.hardware import to_device

from .batch_transform import BatchTransform, resample


@BATCH_AUGMENTS.register_module(name="RandomResizedCrop")
class BatchRandomResizedCrop(BatchTransform):
    """MMPretrain's RandomResizedCrop for images of one size; bilinear alone."""

    def __init__(self, **kwargs) -> None:
        super().__init__(RandomResizedCrop(**kwargs))
        if self.options.interpolation != "bilinear":
            self._refuse(
                f"RandomResizedCrop(interpolation={self.options.interpolation!r})",
                "leave it out, or give 'bilinear'",
            )
        #: Makes no attempt, so it gives the box in the middle.
        self.middle = RandomResizedCrop(**{**kwargs, "max_attempts": 0})

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        boxes = self.draw_boxes(len(images), *images.shape[2:], generator)
        return self.crop(images, boxes)

    def draw_boxes(
        self, n: int, height: int, width: int, generator: torch.Generator
    ) -> Tensor:
        """Boxes [n, 4] on the CPU: top, left, height, width.

        Each image makes all its attempts, and takes the first that fits; the last one
        is the box in the middle, which always does.
        """
        options = self.options
        attempts = options.max_attempts
        area, ratio, top, left = torch.rand(4, n, attempts, generator=generator)
        low, high = options.crop_ratio_range
        area = (low + (high - low) * area) * height * width
        low, high = map(math.log, options.aspect_ratio_range)
        ratio = (low + (high - low) * ratio).exp()
        heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        boxes = torch.stack(
            [
                (top * (height - heights + 1)).floor(),
                (left * (width - widths + 1)).floor(),
                heights,
                widths,
            ],
            dim=-1,
        )
        middle = self.middle.rand_crop_params(np.empty((height, width)))
        middle = torch.tensor(middle, dtype=boxes.dtype)
        boxes = torch.cat([boxes, middle.expand(n, 1, 4)], dim=1)
        fits = torch.cat([fits, fits.new_ones(n, 1)], dim=1)
        first = (fits * torch.arange(attempts + 1, 0, -1)).argmax(1)
        return boxes[torch.arange(n), first]

    def crop(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Cut out and resize.

        Args:
            images (Tensor): [n, 3, H, W], uint8.
            boxes (Tensor): [n, 4], on the CPU; see :meth:`draw_boxes`.

        Returns:
            Tensor: [n, 3, h, w], uint8.
        """
        top, left, heights, widths = to_device(boxes, images.device).unbind(1)
        antialias = self.options.backend == "pillow"
        height, width = self.options.scale
        rows = _bilinear(top, heights, images.shape[2], height, antialias)
        columns = _bilinear(left, widths, images.shape[3], width, antialias)
        return resample(images, rows, columns)


def _bilinear(
    start: Tensor, length: Tensor, size: int, out: int, antialias: bool
) -> Tensor:
    """Weights [n, out, size] of the pixels of each segment, none outside of it.

    Pillow widens the filter where it makes images smaller, OpenCV doesn't.
    """
    pixel = torch.arange(size, device=start.device)
    scale = (length / out)[:, None]
    center = (torch.arange(out, device=start.device) + 0.5) * scale
    if antialias:
        reach = scale.clamp(min=1)
    else:
        reach = torch.ones_like(scale)
        center = torch.minimum(center.clamp(min=0.5), length[:, None] - 0.5)
    center, reach = (center + start[:, None])[..., None], reach[..., None]
    weights = (1 - (pixel + 0.5 - center).abs() / reach).clamp_(min=0)
    end = start + length
    weights *= ((pixel >= start[:, None]) & (pixel < end[:, None]))[:, None]
    return weights / weights.sum(-1, keepdim=True)
