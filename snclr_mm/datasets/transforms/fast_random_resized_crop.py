import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class FastRandomResizedCrop(RandomResizedCrop):
    """RandomResizedCrop with ``backend='pillow'``, resized by torch.

    The same boxes and the same filter; torch has vector instructions for it. Values
    differ from Pillow's by one gray level at most.

    Args:
        backend (str): "pillow", the one whose pixels it gives. Defaults to "pillow".
        kwargs: As for MMPretrain's; interpolation bilinear.

    Raises:
        ValueError: For another backend or interpolation.
    """

    def __init__(self, backend: str = "pillow", **kwargs) -> None:
        super().__init__(backend=backend, **kwargs)
        if backend != "pillow" or self.interpolation != "bilinear":
            raise ValueError(
                f"FastRandomResizedCrop(backend={backend!r}, interpolation="
                f"{self.interpolation!r}) does not exist: backend must be 'pillow' and "
                "interpolation 'bilinear', or take RandomResizedCrop (config key "
                "train_dataloader.dataset.pipeline)."
            )

    def transform(self, results: dict) -> dict:
        """Crop and resize ``img``, [H, W, 3], uint8."""
        image = results["img"]
        top, left, height, width = self.rand_crop_params(image)
        crop = np.ascontiguousarray(image[top : top + height, left : left + width])
        crop = torch.from_numpy(crop).permute(2, 0, 1)[None]
        view = F.interpolate(crop, tuple(self.scale), mode="bilinear", antialias=True)
        results["img"] = view[0].permute(1, 2, 0).numpy()
        results["img_shape"] = results["img"].shape
        return results
