import logging
from collections import Counter

import mmcv.transforms
import mmengine.dataset.base_dataset
from mmengine.logging import print_log

#: How often transforms of a type have returned None, in this process.
_counts: Counter = Counter()


def report_none() -> None:
    """Let pipelines name the transform that returned None, and the image.

    MMEngine then takes another image at random, without a word, and gives up after
    1000; inside MultiView the run ends, in a TypeError that names nothing. What a run
    does stays as it is: transforms of MMDetection refuse images on purpose. The first,
    the 10th, the 100th ... time of a type of transform is logged, in each process that
    loads images; as an error, since other ranks than the first log nothing less.
    """
    mmengine.dataset.base_dataset.Compose.__call__ = _run_transforms
    mmcv.transforms.Compose.transform = _run_transforms


def _run_transforms(self, data):
    """Apply the transforms one after the other; None as soon as one returns it."""
    for transform in self.transforms:
        given, data = data, transform(data)
        if data is None:
            _report(type(transform).__name__, given)
            break
    return data


def _report(name: str, given) -> None:
    _counts[name] += 1
    if str(_counts[name]).strip("0") == "1":
        image = given
        if isinstance(given, dict):
            image = given.get("img_path") or f"number {given.get('sample_idx')}"
        print_log(
            f"The transform {name} returned None for the image {image!r} (number "
            f"{_counts[name]} in this process): another image, drawn at random, takes "
            "its place, or the run ends where that is not possible. Let the transform "
            "return its results; take images it cannot serve out of the data (config "
            "keys dataset.pipeline, dataset.data_root and ann_file of the dataloader).",
            "current",
            logging.ERROR,
        )
