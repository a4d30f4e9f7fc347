"""Make any config of the repository small, by overrides: it stays the same config."""

from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS

from snclr_mm.evaluation.features import pool_features

BATCH = 8
WIDTH = 16
PATCH = 16  # of the ViTs, so that their smallest image is one patch

#: Numbers that are made at most this large, wherever the key occurs.
AT_MOST = {
    # data
    "batch_size": BATCH,
    "num_workers": 0,
    # training
    "max_epochs": 1,
    "max_iters": 2,
    "val_interval": 1,
    "epoch_queue_starts": 0,
    # model
    "depth": 18,
    "in_channels": WIDTH,
    "hid_channels": WIDTH,
    "hidden_channels": WIDTH,
    "out_channels": WIDTH,
    "feat_dim": WIDTH,
    "dim": WIDTH,
    "length": 64,
    "queue_length": 2 * BATCH,
    "num_neighbors": 4,
    "num_prototypes": 10,
    # evaluation
    "k": 5,
}
#: Image sizes in pixels: a seventh (224 -> 32, 96 -> 16), in whole patches.
PIXELS = ("scale", "crop_size", "img_size", "input_size", "size")
#: Backbones lose layers and channels.
BACKBONES = {
    "ResNet": dict(stem_channels=8, base_channels=8),
    "ResNet_CIFAR": dict(stem_channels=8, base_channels=8),
    "VisionTransformer": dict(
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
    ),
    "ConvNeXt": dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 16])),
    "SwinTransformer": dict(
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        pad_small_map=True,
    ),
    "TIMMBackbone": dict(  # one of timm's ResNets
        layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=8
    ),
}
BACKBONES["MoCoV3ViT"] = BACKBONES["VisionTransformer"]


def shrink(cfg: Config, image_folder: Path, work_dir: Path) -> Config:
    """Two iterations of a small model on real images, then evaluation if there is one.

    Args:
        cfg (Config): Changed in place.
        image_folder (Path): The fixture; where a config reads labels, they are the
            rows of the two photographs, 8 classes.
        work_dir (Path): For logs and checkpoints.
    """
    cfg.work_dir = str(work_dir)
    cfg.launcher = "none"
    cfg.randomness = dict(seed=0)
    shrink_numbers(cfg)
    labels = _write_labels(image_folder, work_dir)
    for stage, images in (("train", 2 * BATCH), ("val", BATCH), ("test", BATCH)):
        loader = cfg.get(f"{stage}_dataloader")
        if loader:
            loader.dataset = _dataset(loader.dataset, image_folder, labels, images)
        bank = (cfg.get(f"{stage}_cfg") or {}).get("bank_dataloader")
        if bank:
            bank.dataset = _dataset(bank.dataset, image_folder, labels, None)
    return cfg


def shrink_numbers(cfg: Config) -> Config:
    """The same with few channels, layers, pixels and steps; changed in place."""
    _shrink_numbers(cfg._cfg_dict)
    _shrink_backbone(cfg.model)
    return cfg


def _shrink_numbers(node) -> None:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if isinstance(value, dict) and value.get("type") == "Pretrained":
            node[key] = None
        elif isinstance(value, dict | list):
            _shrink_numbers(value)
        elif key in AT_MOST and isinstance(value, int):
            node[key] = min(value, AT_MOST[key])
        elif key in PIXELS:
            node[key] = _shrink_pixels(value)


def _shrink_pixels(value):
    if isinstance(value, tuple):
        return tuple(_shrink_pixels(v) for v in value)
    if isinstance(value, int) and value > 2 * PATCH:
        return PATCH * max(1, round(value / 7 / PATCH))
    return value


def _shrink_backbone(model: ConfigDict) -> None:
    backbone = model.backbone
    if "num_stages" not in backbone:  # else it is a small one already
        backbone.update(BACKBONES[backbone.type])
    if backbone.type.endswith("ViT") and "frozen_stages" in backbone:
        backbone.frozen_stages = 1  # all of its layers
    network = MODELS.build(backbone)
    network.eval()
    width = pool_features(network(torch.zeros(1, 3, 2 * PATCH, 2 * PATCH))).shape[1]
    for part in (model.get("neck"), model.head):
        if part and "in_channels" in part:
            part.in_channels = width
            return


def _write_labels(image_folder: Path, work_dir: Path) -> str:
    # Tile i of a photograph is in row i // 6; the order mixes the classes.
    lines = [
        f"{photo}/{i}.{'jpg' if i % 2 else 'png'} {4 * p + i // 6}"
        for i in sorted(range(24), key=lambda i: (i % 6, i))
        for p, photo in enumerate(("china", "flower"))
    ]
    file = work_dir / "labels.txt"
    file.write_text("\n".join(lines))
    assert all((image_folder / line.split()[0]).exists() for line in lines)
    return str(file)


def _dataset(dataset, image_folder: Path, labels: str, images: int | None) -> dict:
    changes = dict(data_root=str(image_folder), indices=images)
    if dataset.type == "ImageFolder":
        if dataset.get("cache_dir"):
            changes["cache_dir"] = str(Path(labels).parent / "cache")
        return ConfigDict(dataset, **changes)
    return ConfigDict(
        type="CustomDataset",
        ann_file=labels,
        pipeline=dataset.pipeline,
        **changes,
    )
