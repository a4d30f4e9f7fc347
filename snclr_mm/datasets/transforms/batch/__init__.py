"""Transforms of pretraining views for whole batches; see AugmentDataPreprocessor."""

from .batch_transform import BatchRandomApply, BatchTransform, build_transforms
from .color_jitter import BatchColorJitter
from .gaussian_blur import BatchGaussianBlur
from .random_resized_crop import BatchRandomResizedCrop
from .simple_transforms import BatchRandomFlip, BatchRandomGrayscale, BatchSolarize

__all__ = [
    "BatchColorJitter",
    "BatchGaussianBlur",
    "BatchRandomApply",
    "BatchRandomFlip",
    "BatchRandomGrayscale",
    "BatchRandomResizedCrop",
    "BatchSolarize",
    "BatchTransform",
    "build_transforms",
]
