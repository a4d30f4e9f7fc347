import torch

from snclr_mm.evaluation import Pixels, drop_equal_channels
from snclr_mm.evaluation.features import batch_features


def test_pixels():
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    features, _ = batch_features(Pixels(), dict(inputs=images, data_samples=None))
    torch.testing.assert_close(features, images.flatten(1) / 255)


def test_drop_equal_channels():
    grey = torch.rand(4, 1, 30).expand(-1, 3, -1).flatten(1)
    color = torch.rand(2, 90)
    one, two = drop_equal_channels(grey, grey[:2])
    assert torch.equal(one, grey[:, :30]) and torch.equal(two, grey[:2, :30])
    assert all(map(torch.equal, drop_equal_channels(grey, color), (grey, color)))
