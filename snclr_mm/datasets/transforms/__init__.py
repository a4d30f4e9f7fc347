from .fast_random_resized_crop import FastRandomResizedCrop
from .load_image import LoadImage

__all__ = ["FastRandomResizedCrop", "LoadImage"]
