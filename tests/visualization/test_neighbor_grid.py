import cv2
import numpy as np

from snclr_mm.visualization import plot_neighbors


def draw(photos, path, scores, **options):
    """Mean of each pixel's channels, blue, green and red, of the picture."""
    tiles = [photos[0][y : y + 64, :64] for y in range(0, 300, 50)]
    plot_neighbors(tiles[:2], [tiles[2:5], tiles[3:6]], scores, path, **options)
    return cv2.imread(str(path)).astype(int)


def test_frames_tell_classes_apart_where_there_are_any(photos, tmp_path):
    weight = np.full((2, 3), 1 / 3)
    counts = {}
    for name in ("cat", "dog", None):
        names = dict(query_names=["cat"] * 2, neighbor_names=[[name] * 3] * 2)
        options = dict(names if name else {}, chance=1 / 3)
        image = draw(photos, tmp_path / f"{name}.png", weight, **options)
        counts[name] = [
            (abs(image - color).max(axis=2) < 8).sum()
            for color in ((0xB2, 0x72, 0), (0, 0x5E, 0xD5))  # blue, orange
        ]
    plain = counts[None]
    assert counts["cat"][0] > plain[0] + 500 and counts["cat"][1] <= plain[1] + 50
    # Dashed, so also the line tells them apart.
    assert plain[1] + 300 < counts["dog"][1] < plain[1] + 0.9 * counts["cat"][0]
    assert counts["dog"][0] <= plain[0] + 50


def test_bars_are_as_long_as_the_scores(photos, tmp_path):
    def dark(scores, chance):
        image = draw(photos, tmp_path / "bars.png", scores, chance=chance)
        return (abs(image - 64).max(axis=2) < 2).sum()  # 0.25 of white

    without = dark(np.zeros((2, 3)), None)
    half, whole = (dark(np.full((2, 3), v), None) - without for v in (0.5, 1.0))
    assert whole > 1000 and abs(half / whole - 0.5) < 0.05
    # Positiveness is drawn as a multiple of 1/K: the largest fills its bar.
    weight = np.array([[0.6, 0.3, 0.1]] * 2)
    share = (dark(weight, 1 / 3) - without) / whole
    assert abs(share - (0.6 + 0.3 + 0.1) / 0.6 / 3) < 0.05


def test_names_are_shown_as_they_are(photos, tmp_path):
    """No formula, no tag; where a class is not known, there is no frame."""
    evil = ["$\\frac{", "<script>"]
    names = dict(
        query_names=[evil[0], None], neighbor_names=[[evil[0]] * 3, [None, *evil]]
    )
    image = draw(photos, tmp_path / "a.png", np.ones((2, 3)), **names)
    same = draw(
        photos,
        tmp_path / "b.png",
        np.ones((2, 3)),
        query_names=["a", "a"],
        neighbor_names=[["a"] * 3] * 2,
    )
    blue, all_blue = (
        (abs(i - (0xB2, 0x72, 0)).max(axis=2) < 8).sum() for i in (image, same)
    )
    assert 0.4 * all_blue < blue < 0.6 * all_blue


def test_nothing_is_cut_off(photos, tmp_path):
    """Few neighbors make a narrow picture, with the longest legend."""
    names = dict(query_names=["a", "a"], neighbor_names=[["a"] * 3] * 2)
    image = draw(photos, tmp_path / "a.png", np.ones((2, 3)), chance=1 / 3, **names)
    assert (image[:, :3] == 255).all() and (image[-60:, -3:] == 255).all()
