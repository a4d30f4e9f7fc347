from .dataset_configs import (
    find_test_pipeline,
    holds_rgb,
    sees_rgb,
    set_to_rgb,
    single_datasets,
)
from .image_cache import ImageCache
from .image_folder import ImageFolder
from .labeled_subset import labeled_subset
from .transforms import FastRandomResizedCrop, LoadImage

__all__ = [
    "FastRandomResizedCrop",
    "ImageCache",
    "ImageFolder",
    "LoadImage",
    "find_test_pipeline",
    "holds_rgb",
    "labeled_subset",
    "sees_rgb",
    "set_to_rgb",
    "single_datasets",
]
