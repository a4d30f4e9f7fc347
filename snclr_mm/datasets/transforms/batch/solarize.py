import torch
from mmpretrain.datasets.transforms import Solarize
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from .batch_transform import BatchTransform


@BATCH_AUGMENTS.register_module(name="Solarize")
class BatchSolarize(BatchTransform):
    """MMPretrain's Solarize: values from the threshold on are inverted.

    Args:
        kwargs: ``thr`` and ``prob`` as for MMPretrain's.

    Raises:
        ValueError: Without ``thr``.
    """

    def __init__(self, **kwargs) -> None:
        options = Solarize(**kwargs)
        if options.thr is None:
            raise ValueError(
                "Solarize without thr does not work on batches: give thr in place of "
                "magnitude_range (config key data_preprocessor.transforms)."
            )
        self.threshold, self.prob = options.thr, options.prob

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(images < self.threshold, images, 255 - images)
