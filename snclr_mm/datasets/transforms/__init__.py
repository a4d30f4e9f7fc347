from .fast_random_resized_crop import FastRandomResizedCrop
from .load_image import LoadImage
from .none_results import report_none

report_none()

__all__ = ["FastRandomResizedCrop", "LoadImage"]
