import numpy as np
import pytest
from mmpretrain.registry import DATASETS


def build(root, split_file):
    return DATASETS.build(
        dict(
            type="LabeledSubset",
            base="FashionMNIST",
            data_root=str(root),
            split_file=split_file,
            serialize_data=False,
        )
    )


def build_whole(root):
    return DATASETS.build(
        dict(type="FashionMNIST", data_root=str(root), serialize_data=False)
    )


def test_keeps_the_listed_images(digits_root, tmp_path):
    whole = build_whole(digits_root)
    rows = [3, 1436, 50]
    labels = whole.get_gt_labels()[rows]
    split = tmp_path / "split.txt"
    lines = zip(rows, labels, strict=True)
    split.write_text("".join(f"{row} {label}\n" for row, label in lines))
    subset = build(digits_root, str(split))
    assert type(subset) is type(whole)
    assert len(subset) == 3
    assert subset.CLASSES == whole.CLASSES
    for i, row in enumerate(rows):
        ours, theirs = subset.get_data_info(i), whole.get_data_info(row)
        assert np.array_equal(ours["img"], theirs["img"])
        assert ours["gt_label"] == theirs["gt_label"]


@pytest.mark.parametrize(
    "text", ["0 9\n", "1437 0\n", "a.jpg 0\n", "0\n", "0 0 0\n", ""]
)
def test_split_of_other_data(text, digits_root, tmp_path):
    whole = build_whole(digits_root)
    assert whole.get_data_info(0)["gt_label"] == 0
    split = tmp_path / "split.txt"
    split.write_text(text)
    with pytest.raises(ValueError, match=r"split\.txt' does not .* FashionMNIST"):
        build(digits_root, str(split))


def test_missing_split_file(digits_root):
    with pytest.raises(
        FileNotFoundError, match=r"digits.*none\.txt.*make_semi_supervised_splits"
    ):
        build(digits_root, "none.txt")
