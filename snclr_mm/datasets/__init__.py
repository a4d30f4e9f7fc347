from .coco import CocoFile, box_of, check_empty, encode_mask
from .image_cache import ImageCache
from .image_folder import ImageFolder
from .labeled_subset import labeled_subset
from .transforms import FastRandomResizedCrop, LoadImage

__all__ = [
    "CocoFile",
    "FastRandomResizedCrop",
    "ImageCache",
    "ImageFolder",
    "LoadImage",
    "box_of",
    "check_empty",
    "encode_mask",
    "labeled_subset",
]
