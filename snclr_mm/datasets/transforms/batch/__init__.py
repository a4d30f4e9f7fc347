"""Transforms of pretraining views for whole batches; see AugmentDataPreprocessor."""

from .batch_transform import BatchTransform, build_transforms
from .color_jitter import BatchColorJitter
from .gaussian_blur import BatchGaussianBlur
from .random_apply import BatchRandomApply
from .random_flip import BatchRandomFlip
from .random_grayscale import BatchRandomGrayscale
from .random_resized_crop import BatchRandomResizedCrop
from .solarize import BatchSolarize

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
