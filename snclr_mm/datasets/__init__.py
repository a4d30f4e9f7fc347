from .image_folder import ImageFolder
from .load_image import LoadImage

__all__ = ["ImageFolder", "LoadImage"]
