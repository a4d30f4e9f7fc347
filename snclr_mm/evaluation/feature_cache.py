import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .splits import Split


class FeatureCache:
    """Features in files, each named by everything that its content depends on.

    Args:
        folder (Path): Where the files are.
        model_config (dict): Config of the model.
    """

    def __init__(self, folder: Path, model_config: dict) -> None:
        self.folder = Path(folder)
        self.model_config = model_config

    def get(
        self, model: nn.Module, split: Split, extract: Callable[[], tuple]
    ) -> tuple[Tensor, Tensor]:
        """Read features and labels, or let ``extract`` make them, and write them.

        What counts is the content of the model's weights and of the split's images.
        """
        configs = [type(model).__name__, self.model_config, split.config]
        digest = hashlib.sha256(json.dumps(configs, default=str).encode())
        digest.update(hash_weights(model).encode())
        digest.update(_hash_images(split))
        path = self.folder / f"{digest.hexdigest()[:32]}.pt"
        if path.exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            return saved["features"], saved["labels"]
        features, labels = extract()
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        torch.save({"features": features.cpu(), "labels": labels.cpu()}, unfinished)
        unfinished.replace(path)
        return features, labels


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of the backbone's weights; of raw pixels, which have none, of nothing."""
    digest = hashlib.sha256()
    if hasattr(model, "backbone"):
        for key, value in model.backbone.state_dict().items():
            digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash_images(split: Split) -> bytes:
    """Of images in memory the content, of files their names, sizes and dates."""
    digest = hashlib.sha256()
    for row in split.rows:
        info = split.dataset.get_data_info(row)
        digest.update(pickle.dumps(info))
        path = Path(info.get("img_path") or "")
        if path.is_file():
            stat = path.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.digest()
