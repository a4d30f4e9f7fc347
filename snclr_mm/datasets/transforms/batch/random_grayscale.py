import torch
from mmcv.transforms import RandomGrayscale
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from .batch_transform import BatchTransform


@BATCH_AUGMENTS.register_module(name="RandomGrayscale")
class BatchRandomGrayscale(BatchTransform):
    """MMCV's RandomGrayscale, which rounds down.

    Args:
        kwargs: As for MMCV's; ``keep_channels`` must be True.

    Raises:
        ValueError: If the options would change the channels of some images alone.
    """

    def __init__(self, **kwargs) -> None:
        options = RandomGrayscale(**kwargs)
        if not options.keep_channels or options.color_format == "hsv":
            raise ValueError(
                f"RandomGrayscale(keep_channels={options.keep_channels}, "
                f"color_format={options.color_format!r}) does not work on batches: "
                "keep_channels must be True and color_format 'bgr' or 'rgb' (config "
                "key data_preprocessor.transforms)."
            )
        self.prob = options.prob
        total = sum(options.channel_weights)
        self.weights = [weight / total for weight in options.channel_weights]

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        gray = sum(
            channel * weight
            for channel, weight in zip(images.unbind(1), self.weights, strict=True)
        )
        # A neutral gray keeps its value, whichever way its sum was rounded.
        gray = (gray + 1e-4).to(torch.uint8)
        return gray[:, None].expand_as(images).contiguous()
