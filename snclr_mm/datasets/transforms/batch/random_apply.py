import torch
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from .batch_transform import BatchTransform, build_transforms


@BATCH_AUGMENTS.register_module(name="RandomApply")
class BatchRandomApply(BatchTransform):
    """MMCV's RandomApply: some images get all of the transforms, the others none.

    Args:
        transforms (list[dict] | dict): Configs of batch transforms.
        prob (float): Probability. Defaults to 0.5.
    """

    def __init__(self, transforms: list[dict] | dict, prob: float = 0.5) -> None:
        transforms = [transforms] if isinstance(transforms, dict) else transforms
        self.transforms = build_transforms(transforms, "RandomApply.transforms")
        self.prob = prob

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        for transform in self.transforms:
            images = transform(images, generator)
        return images
