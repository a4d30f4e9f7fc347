import json

import cv2

from snclr_mm.visualization import plot_transfer, read_metrics


def test_metrics_of_a_resumed_run(tmp_path):
    runs = {
        "20260101_000000": [
            {"loss": 3.0, "lr": 0.1, "iter": 10, "step": 10},
            {"mIoU": 10.0, "aAcc": 50.0, "step": 10},
            {"mIoU": 20.0, "aAcc": 55.0, "step": 20},
        ],
        "20260102_000000": [{"mIoU": 21.0, "step": 20}, {"mIoU": 30.0, "step": 30}],
    }
    for name, records in runs.items():
        folder = tmp_path / name / "vis_data"
        folder.mkdir(parents=True)
        text = "\n".join(json.dumps(record) for record in records)
        (folder / "scalars.json").write_text(text)
    metrics = read_metrics(tmp_path)
    assert metrics == {
        "mIoU": {10: 10.0, 20: 21.0, 30: 30.0},
        "aAcc": {10: 50.0, 20: 55.0},
    }
    assert read_metrics(tmp_path / "none") == {}


def test_plot(tmp_path):
    curve = [(1, 2.0), (2, 3.0)]
    row = {"box AP": {0: curve, 1: curve}, "mask AP": {0: curve, 1: curve}}
    plot_transfer(
        {"random": row, "half": {m: {0: curve[:1]} for m in row}}, tmp_path / "a.png"
    )
    one = {"mIoU": {0: curve}}
    plot_transfer({"random": one}, tmp_path / "b.png")
    wide, narrow = (cv2.imread(str(tmp_path / f"{n}.png")) for n in "ab")
    assert wide.shape[1] > 1.5 * narrow.shape[1] and wide.std() > 5
