import json

import cv2
import pytest

from snclr_mm.visualization import plot_training, read_scalars

RECORDS = [
    dict(loss=5.0, iter=10, time=6.0, step=10),
    dict(loss=4.0, iter=20, time=3.0, step=20),
    {"knn/top1": 50.0, "time": 99.0, "step": 1},
    dict(loss=3.0, iter=30, time=3.0, step=30),
    {"knn/top1": 60.0, "time": 99.0, "step": 2},
]


def test_curves_against_minutes_of_training(tmp_path):
    folder = tmp_path / "20260101_000000/vis_data"
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in RECORDS]
    (folder / "scalars.json").write_text("\n".join(lines))
    scalars = read_scalars(tmp_path)
    # Evaluation (99 s) does not count.
    assert scalars["loss"] == [(1.0, 5.0), (1.5, 4.0), (2.0, 3.0)]
    assert scalars["metric"] == [(1.5, 50.0), (2.0, 60.0)]
    plot_training(scalars, tmp_path / "a.png", {"pixels": 55.0, "random": 40.0})
    plot_training(scalars, tmp_path / "b.png", {})
    pictures = [cv2.imread(str(tmp_path / name)) for name in ("a.png", "b.png")]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()  # the reference lines are drawn


def test_nothing_logged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"scalars\.json"):
        read_scalars(tmp_path)
