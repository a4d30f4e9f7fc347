import torch
from mmcv.transforms import RandomFlip
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from .batch_transform import BatchTransform

AXES = {"horizontal": (3,), "vertical": (2,), "diagonal": (2, 3)}


@BATCH_AUGMENTS.register_module(name="RandomFlip")
class BatchRandomFlip(BatchTransform):
    """MMCV's RandomFlip.

    Args:
        kwargs: ``prob`` and ``direction`` as for MMCV's, one of each.

    Raises:
        ValueError: For lists of them.
    """

    def __init__(self, **kwargs) -> None:
        options = RandomFlip(**kwargs)
        self.prob = options.prob
        if not isinstance(self.prob, float) or not isinstance(options.direction, str):
            raise ValueError(
                f"RandomFlip(prob={options.prob}, direction={options.direction!r}) "
                "does not work on batches: give one of each (config key "
                "data_preprocessor.transforms)."
            )
        self.axes = AXES[options.direction]

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images.flip(self.axes)
