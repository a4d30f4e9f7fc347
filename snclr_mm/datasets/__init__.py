from .image_folder import ImageFolder
from .labeled_subset import labeled_subset
from .load_image import LoadImage

__all__ = ["ImageFolder", "LoadImage", "labeled_subset"]
