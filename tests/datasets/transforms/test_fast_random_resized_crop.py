import numpy as np
import pytest
from mmpretrain.datasets.transforms import RandomResizedCrop

from snclr_mm.datasets import FastRandomResizedCrop


@pytest.mark.parametrize("scale", [224, (32, 48)])
def test_same_boxes_and_pixels(photos, scale):
    for seed in range(6):
        image = photos[seed % 2][..., ::-1]
        np.random.seed(seed)
        fast = FastRandomResizedCrop(scale=scale)({"img": image})
        np.random.seed(seed)
        stock = RandomResizedCrop(scale=scale, backend="pillow")({"img": image})
        assert fast["img"].dtype == np.uint8
        assert fast["img_shape"] == stock["img_shape"]
        difference = np.abs(fast["img"].astype(int) - stock["img"])
        assert difference.max() <= 1
        assert difference.mean() < 0.05


@pytest.mark.parametrize(
    "options", [dict(backend="cv2"), dict(interpolation="bicubic")], ids=str
)
def test_what_it_cannot_do(options):
    with pytest.raises(ValueError, match=r"take RandomResizedCrop .*dataset\.pipeline"):
        FastRandomResizedCrop(scale=32, **options)
