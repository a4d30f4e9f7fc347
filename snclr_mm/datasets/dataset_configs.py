"""What the dataset configs of a config hold."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict

#: MMPretrain's data sets that hold RGB images; files are read as BGR.
RGB_DATASETS = ("CIFAR10", "CIFAR100")


def single_datasets(dataset: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Data sets inside of RepeatDataset, ConcatDataset and the like, by config key.

    Args:
        dataset (Any): Built, or as a config.
        key (str): Its config key.
    """

    def inner(name: str) -> Any:
        if isinstance(dataset, dict):
            return dataset.get(name)
        return getattr(dataset, name, None)

    if inner("datasets") is not None:
        for i, part in enumerate(inner("datasets")):
            yield from single_datasets(part, f"{key}.datasets.{i}")
    elif inner("dataset") is not None:
        yield from single_datasets(inner("dataset"), f"{key}.dataset")
    else:
        yield key, dataset


def holds_rgb(dataset: Any) -> bool:
    """Whether the images of a dataset's config come as RGB, and not as BGR."""
    _, first = next(single_datasets(dataset, ""))
    kind = first.get("base") or first.get("type")  # base: LabeledSubset's
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2] in RGB_DATASETS


def sees_rgb(cfg: Config) -> bool:
    """Whether the network of a pretraining config gets RGB images, and not BGR."""
    part = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    training = cfg.get("train_dataloader")
    rgb = training is not None and holds_rgb(training.dataset)
    return rgb != part.get("to_rgb", False)


def set_to_rgb(cfg: Config, to_rgb: bool) -> None:
    """Whether the data preprocessor, the model's or the config's, swaps channels."""
    part = cfg.model if cfg.model.get("data_preprocessor") else cfg
    given = part.get("data_preprocessor") or {}
    part["data_preprocessor"] = {**given, "to_rgb": to_rgb}


def expect_bgr(cfg: Config) -> None:
    """Turn the channels of a config for RGB images, as files are read as BGR."""
    set_to_rgb(cfg, True)
    places = [cfg.train_dataloader, cfg.get("data_preprocessor"), cfg.model]
    grays = {id(gray): gray for gray in _components(places, "RandomGrayscale")}
    for gray in grays.values():
        if "channel_weights" in gray:
            gray["channel_weights"] = gray["channel_weights"][::-1]


def find_test_pipeline(cfg: Config) -> list[dict]:
    """How one image is prepared: as for testing, else as the training crops suggest."""
    for stage in ("test", "val"):
        dataset = (cfg.get(f"{stage}_dataloader") or {}).get("dataset") or {}
        if dataset.get("pipeline"):
            return with_load_image(dataset.pipeline)
    training = [cfg.train_dataloader.dataset, cfg.get("data_preprocessor")]
    crops = _components(training, "RandomResizedCrop")
    sizes = [crop["scale"] for crop in crops if "scale" in crop]
    if not sizes:
        raise ValueError(
            "The config has no test_dataloader.dataset.pipeline, and no "
            "RandomResizedCrop whose size could serve instead: set one."
        )
    size = sizes[0] if isinstance(sizes[0], int) else max(sizes[0])
    return [
        dict(type="LoadImage"),
        dict(type="ResizeEdge", scale=size * 8 // 7, edge="short"),
        dict(type="CenterCrop", crop_size=size),
        dict(type="PackInputs"),
    ]


def with_load_image(pipeline: list) -> list:
    """The same, with LoadImage, which reads more and names what it cannot read."""
    pipeline = deepcopy(pipeline)
    if pipeline and pipeline[0]["type"] == "LoadImageFromFile":
        options = {k: v for k, v in pipeline[0].items() if k != "ignore_empty"}
        pipeline[0] = ConfigDict(options, type="LoadImage")
    return pipeline


def _components(node: Any, kind: str) -> Iterator[dict]:
    """The configs of the components of a type, in order."""
    if isinstance(node, dict):
        if node.get("type") == kind:
            yield node
        node = list(node.values())
    for value in node if isinstance(node, list | tuple) else ():
        yield from _components(value, kind)
