import cv2
import numpy as np

from snclr_mm.visualization import plot_neighbors


def test_images_and_class_colors_are_drawn(photos, tmp_path):
    tiles = np.stack([photos[0][y : y + 64, :64] for y in range(0, 300, 50)])
    weight = np.full((2, 3), 1 / 3)
    counts = {}
    for same in (True, False):
        path = tmp_path / f"{same}.png"
        plot_neighbors(
            tiles[:2],
            np.stack([tiles[2:5], tiles[3:6]]),
            weight,
            np.full((2, 3), same),
            path,
        )
        _, green, red = cv2.imread(str(path)).astype(int).transpose(2, 0, 1)
        counts[same] = ((green - red > 60).sum(), (red - green > 60).sum())
    # Green frames for the same class, red ones for another.
    assert counts[True][0] > counts[False][0] + 500
    assert counts[False][1] > counts[True][1] + 500
