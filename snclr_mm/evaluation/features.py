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


def network_inputs(model: nn.Module, batch: dict) -> Tensor:
    """A batch's images as the network takes them; DataSamples stay where they are."""
    images = {"inputs": batch["inputs"], "data_samples": None}
    return model.data_preprocessor(images, False)["inputs"]


@torch.no_grad()
def batch_features(model: nn.Module, batch: dict) -> tuple[Tensor, list]:
    """Backbone features [n, C] (float32) and DataSamples of a dataloader's batch.

    The model is a self-supervised algorithm, possibly wrapped, in eval mode. The
    samples stay on the CPU.
    """
    model = get_ori_model(model)
    features = model.extract_feat(network_inputs(model, batch))
    return pool_features(features), batch.get("data_samples")


def check_finite(features: Tensor, source: str, across_ranks: bool = False) -> None:
    """Raise ValueError if features [n, C] hold NaN or infinity: they spoil any result.

    ``source`` is what they are of, for the message. With ``across_ranks`` the ranks
    call this together, and raise together.
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


def gt_labels(
    data_samples: list, source: str, num_classes: int | None = None
) -> Tensor:
    """Collect the labels of a batch of ``source``: [n], int64.

    With ``num_classes`` images have several: [n, num_classes], 1 where the image has
    the class, else 0, or -1 where it has only difficult objects of it (VOC; needs
    ``gt_label_difficult`` in the ``meta_keys`` of PackInputs). Without a label it is a
    ValueError.
    """
    if not data_samples or any("gt_label" not in sample for sample in data_samples):
        raise ValueError(
            f"{source} has images without labels, but evaluation compares classes: "
            "give a labeled dataset, or train with --no-validate."
        )
    if num_classes is None:
        return torch.cat([sample.gt_label for sample in data_samples])
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
    across_ranks: bool = False,
) -> tuple[Tensor, Tensor]:
    """Extract the backbone features and labels of a whole dataset on this process.

    Args:
        model (nn.Module): A self-supervised algorithm; put in eval mode, and back.
        dataloader (Iterable[dict]): Batches of single views with labels.
        source (str): Name of the data in errors.
        progress (Callable): Wraps the dataloader, e.g. with a progress bar.
        num_classes (int | None): Of multi-label data, see :func:`gt_labels`.
        across_ranks (bool): As for :func:`check_finite`. Defaults to False.

    Returns:
        tuple[Tensor, Tensor]: Features [n, C] (float32) and labels, see
        :func:`gt_labels`, on the model's device.

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
        batch_labels = gt_labels(data_samples, source, num_classes)
        labels.append(batch_labels.to(batch_out.device))
    model.train(training)
    if not features:
        raise ValueError(f"{source} is empty.")
    features = torch.cat(features)
    check_finite(features, source, across_ranks)
    return features, torch.cat(labels)
