from collections.abc import Callable, Iterable

import torch
from mmengine.dist import all_reduce
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn


def pool_features(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Turn a backbone's output into one vector per image.

    Args:
        outputs (Tensor | tuple[Tensor]): Of several stages the last is taken: feature
            maps [n, C, H, W] are averaged, class tokens [n, C] taken as they are.

    Returns:
        Tensor: [n, C], float32.

    Raises:
        ValueError: For any other shape.
    """
    last = outputs[-1] if isinstance(outputs, list | tuple) else outputs
    if last.dim() == 4:
        last = last.mean(dim=(2, 3))
    if last.dim() != 2:
        raise ValueError(
            f"The backbone gives {list(last.shape)}; one vector per image needs a "
            "feature map [n, C, H, W] or a class token [n, C] (config key "
            "model.backbone.out_type or out_indices)."
        )
    return last.float()


@torch.no_grad()
def batch_features(model: nn.Module, batch: dict) -> tuple[Tensor, list]:
    """Preprocess a batch and extract its backbone features.

    Args:
        model (nn.Module): A self-supervised algorithm, possibly wrapped, in eval mode.
        batch (dict): From a dataloader with ``default_collate``.

    Returns:
        tuple[Tensor, list]: Features [n, C], float32, and the batch's DataSamples.
    """
    model = get_ori_model(model)
    data = model.data_preprocessor(batch, False)
    return pool_features(model.extract_feat(data["inputs"])), data["data_samples"]


def check_finite(features: Tensor, source: str, across_ranks: bool = False) -> None:
    """Refuse features that hold NaN or infinity: they would spoil any result.

    Args:
        features (Tensor): [n, C].
        source (str): What they are of, for the message.
        across_ranks (bool): Count over all ranks, which call this together and raise
            together. Defaults to False.

    Raises:
        ValueError: With the number of such features.
    """
    spoilt = (~features.isfinite().all(dim=1)).sum()
    counts = torch.stack([spoilt, torch.full_like(spoilt, len(features))])
    if across_ranks:
        all_reduce(counts)
    spoilt, total = counts.tolist()
    if spoilt:
        raise ValueError(
            f"{spoilt} of {total} features of {source} are not finite (NaN or "
            "infinite): did the training diverge?"
        )


def gt_labels(data_samples: list, source: str) -> Tensor:
    """Collect the labels of a batch, [n], int64.

    Raises:
        ValueError: If an image of ``source`` has none.
    """
    if not data_samples or any("gt_label" not in sample for sample in data_samples):
        raise ValueError(
            f"{source} has images without labels, but evaluation compares classes: "
            "give a labeled dataset, or train with --no-validate."
        )
    return torch.cat([sample.gt_label for sample in data_samples])


def multi_label_targets(data_samples: list, num_classes: int, source: str) -> Tensor:
    """Collect the labels of a batch of images with any number of classes each.

    Returns:
        Tensor: [n, num_classes], int64: 1 where the image has the class, else 0, or -1
        where it has only difficult objects of it (VOC; needs ``gt_label_difficult`` in
        the ``meta_keys`` of PackInputs).

    Raises:
        ValueError: If an image of ``source`` has no label.
    """
    gt_labels(data_samples, source)
    targets = torch.zeros(len(data_samples), num_classes, dtype=torch.long)
    for target, sample in zip(targets, data_samples, strict=True):
        target[list(sample.get("gt_label_difficult") or [])] = -1
        target[sample.gt_label.cpu()] = 1
    return targets


def extract_features(
    model: nn.Module,
    dataloader: Iterable[dict],
    source: str = "the dataset",
    progress: Callable[[Iterable[dict]], Iterable[dict]] = iter,
    num_classes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Extract the backbone features and labels of a whole dataset on this process.

    Args:
        model (nn.Module): A self-supervised algorithm; put in eval mode, and back.
        dataloader (Iterable[dict]): Batches of single views with labels.
        source (str): Name of the data in errors.
        progress (Callable): Wraps the dataloader, e.g. with a progress bar.
        num_classes (int | None): Of multi-label data. Defaults to None: each image has
            one label.

    Returns:
        tuple[Tensor, Tensor]: Features [n, C] (float32) and labels [n] (int64), on the
        model's device; of multi-label data, see :func:`multi_label_targets`.

    Raises:
        ValueError: If the dataset is empty, an image has no label, or a feature is not
            finite.
    """
    training = model.training
    model.eval()
    features, labels = [], []
    for batch in progress(dataloader):
        batch_out, data_samples = batch_features(model, batch)
        features.append(batch_out)
        if num_classes is None:
            batch_labels = gt_labels(data_samples, source)
        else:
            batch_labels = multi_label_targets(data_samples, num_classes, source)
        labels.append(batch_labels.to(batch_out.device))
    model.train(training)
    if not features:
        raise ValueError(f"{source} is empty.")
    features = torch.cat(features)
    check_finite(features, source)
    return features, torch.cat(labels)
