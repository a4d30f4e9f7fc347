import torch
from mmcv.transforms import RandomFlip, RandomGrayscale
from mmpretrain.datasets.transforms import Solarize
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from .batch_transform import BatchTransform

AXES = {"horizontal": (3,), "vertical": (2,), "diagonal": (2, 3)}


@BATCH_AUGMENTS.register_module(name="RandomFlip")
class BatchRandomFlip(BatchTransform):
    """MMCV's RandomFlip with one probability and one direction, not lists of them."""

    def __init__(self, **kwargs) -> None:
        super().__init__(RandomFlip(**kwargs))
        direction = self.options.direction
        if not isinstance(self.prob, float) or not isinstance(direction, str):
            self._refuse(
                f"RandomFlip(prob={self.prob}, direction={direction!r})",
                "give one of each",
            )
        self.axes = AXES[direction]

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images.flip(self.axes)


@BATCH_AUGMENTS.register_module(name="RandomGrayscale")
class BatchRandomGrayscale(BatchTransform):
    """MMCV's RandomGrayscale, which rounds down; with ``keep_channels=True``."""

    def __init__(self, **kwargs) -> None:
        super().__init__(RandomGrayscale(**kwargs))
        options = self.options
        if not options.keep_channels or options.color_format == "hsv":
            self._refuse(
                f"RandomGrayscale(keep_channels={options.keep_channels}, "
                f"color_format={options.color_format!r})",
                "keep_channels must be True and color_format 'bgr' or 'rgb'",
            )
        total = sum(options.channel_weights)
        self.weights = [weight / total for weight in options.channel_weights]

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        channels = zip(images.unbind(1), self.weights, strict=True)
        gray = sum(channel * weight for channel, weight in channels)
        # A neutral gray keeps its value, whichever way its sum was rounded.
        gray = (gray + 1e-4).to(torch.uint8)
        return gray[:, None].expand_as(images).contiguous()


@BATCH_AUGMENTS.register_module(name="Solarize")
class BatchSolarize(BatchTransform):
    """MMPretrain's Solarize with ``thr``: values from it on are inverted."""

    def __init__(self, **kwargs) -> None:
        super().__init__(Solarize(**kwargs))
        if self.options.thr is None:
            self._refuse("Solarize without thr", "give thr in place of magnitude_range")

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(images < self.options.thr, images, 255 - images)
