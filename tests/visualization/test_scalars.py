from snclr_mm.visualization import read_metrics, read_scalars
from snclr_mm.visualization.scalars import read_records

LINES = (
    '{"loss": 2.0, "iter": 1, "time": 1.0, "step": 1}\n'
    '{"knn/top1": 50.0, "step": 1}\n'
    "7\n"
    '{"loss": 1.0, "ite'  # the process was killed here
)


def test_lines_that_are_no_records(tmp_path):
    file = tmp_path / "run/vis_data/scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text(LINES)
    records, damaged = read_records(file)
    assert [record["step"] for record in records] == [1, 1] and damaged == 2
    assert read_metrics(tmp_path) == {"knn/top1": {1: 50.0}}
    assert read_scalars(tmp_path) == {"loss": [(1 / 60, 2.0)], "metric": [(1 / 60, 50)]}
