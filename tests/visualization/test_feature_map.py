import numpy as np
import pytest
import torch
from helpers.pages import read_data

from snclr_mm.visualization import describe_images, map_features, write_feature_map
from snclr_mm.visualization.feature_map import STEPS

EVIL = "</script><script>alert(1)</script>"


def test_similar_features_lie_together():
    """Three directions; lengths, which the cosine does not see, differ."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(90) % 3
    noise = 0.05 * torch.randn(90, 8, generator=generator)
    features = torch.eye(8)[group] + noise
    features = features * (1 + 50 * torch.rand(90, 1, generator=generator))
    places = torch.from_numpy(map_features(features))
    distance = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert (group[distance.argmin(dim=1)] == group).float().mean() > 0.95
    assert np.array_equal(places, map_features(features))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_images(n):
    assert map_features(torch.randn(n, 5)).shape == (n, 2)
    assert np.isfinite(map_features(torch.ones(n, 5))).all()


def test_page(photos, tmp_path):
    """Both axes have one scale; a column of equal places is in the middle."""
    pictures = [photos[0][:90, :120], photos[1][:50, :40], photos[0][:9, :9]]
    places = {
        EVIL: np.array([[0, 0], [4, 1], [2, 2]], dtype=np.float32),
        "equal": np.ones((3, 2), dtype=np.float32),
    }
    path = tmp_path / "new/map.html"
    labels = [0, None, 7]
    images = describe_images(pictures, [EVIL] * 3, labels, [EVIL], EVIL)
    write_feature_map(path, images, places)
    text = path.read_text()
    assert text.count("<script") == 3 and text.count("</script>") == 3
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    data = read_data(path)
    assert data["labels"] == labels and data["classes"] == [EVIL]
    first, equal = data["runs"]
    assert first["x"] == [0, STEPS, round(STEPS / 2)]
    assert first["y"] == [round(STEPS * part) for part in (0.25, 0.5, 0.75)]
    assert set(equal["x"] + equal["y"]) == {round(STEPS / 2)}
