import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn


class Pixels(nn.Module):
    """Raw pixels in place of a network's features: the baseline of a linear probe.

    Takes the images as the pipeline gives them, so without normalisation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.data_preprocessor = BaseDataPreprocessor()

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor]:
        """Flatten images [n, 3, H, W] (uint8) into features [n, 3HW] in [0, 1]."""
        return (inputs.flatten(1).float() / 255,)


def drop_equal_channels(*features: Tensor) -> tuple[Tensor, ...]:
    """Keep one of the three channels of pixels, if all images are grey.

    Args:
        features (Tensor): Of :class:`Pixels`, [n, 3HW] each.

    Returns:
        tuple[Tensor]: [n, HW] each; as they were, if an image has colors.
    """
    channels = [part.view(len(part), 3, -1) for part in features]
    if all(torch.equal(c[:, :1].expand_as(c), c) for c in channels):
        return tuple(c[:, 0].contiguous() for c in channels)
    return features
