from .image_cache import ImageCache
from .image_folder import ImageFolder
from .labeled_subset import labeled_subset
from .transforms import FastRandomResizedCrop, LoadImage

__all__ = [
    "FastRandomResizedCrop",
    "ImageCache",
    "ImageFolder",
    "LoadImage",
    "labeled_subset",
]
