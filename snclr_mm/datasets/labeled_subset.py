from pathlib import Path

from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS


@DATASETS.register_module(name="LabeledSubset")
def labeled_subset(
    base: str, split_file: str, data_root: str = "", **kwargs
) -> BaseDataset:
    """Build a dataset and keep the images that a split file lists.

    For datasets that hold their images in memory (FashionMNIST, CIFAR10); a split of
    image files is an ``ann_file`` of MMPretrain's own classes.

    Args:
        base (str): Type of the whole dataset.
        split_file (str): Lines ``index label``, written by
            tools/data/make_semi_supervised_splits.py; relative to ``data_root``.
        data_root (str): As for the whole dataset.
        kwargs: As for the whole dataset.

    Returns:
        BaseDataset: The whole dataset's class, with the listed images alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it was made for other data.
    """
    path = Path(data_root).expanduser() / split_file
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no split file {str(path)!r} (config key dataset.split_file): "
            "write it with tools/data/make_semi_supervised_splits.py."
        )
    dataset = DATASETS.build(dict(type=base, data_root=data_root, **kwargs))
    lines = [line.split() for line in path.read_text().splitlines()]
    try:
        rows = {int(index): int(label) for index, label in lines}
        fits = all(
            dataset.get_data_info(index)["gt_label"] == label
            for index, label in rows.items()
        )
    except (ValueError, IndexError):
        fits = False
    if not fits or not rows:
        raise ValueError(
            f"{str(path)!r} does not list indices and labels of this {base} (config "
            "key dataset.split_file): it was made for other data."
        )
    dataset.get_subset_(list(rows))
    return dataset
