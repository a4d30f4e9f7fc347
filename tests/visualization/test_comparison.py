import cv2

from snclr_mm.visualization import plot_comparison


def test_dots_stand_where_the_values_are(tmp_path):
    centers = {}
    for name, value in (("low", 10.0), ("high", 90.0)):
        path = tmp_path / f"{name}.png"
        plot_comparison(
            {"a": {"knn": [0.0]}, "b": {"knn": [value]}, "c": {"knn": [100.0]}}, path
        )
        blue, _, red = cv2.imread(str(path)).astype(int).transpose(2, 0, 1)
        dots = (blue - red > 60).nonzero()
        height = dots[0].max() + dots[0].min()
        middle = abs(dots[0] - height / 2) < 12  # the row of method b
        centers[name] = dots[1][middle].mean() / blue.shape[1]
    assert centers["high"] - centers["low"] > 0.3
