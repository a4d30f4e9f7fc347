"""Dataloaders of a config: their defaults, and whether their data is there."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from snclr_mm.datasets import single_datasets
from snclr_mm.registry import MIM

#: What makes a small data set of this project, by the name of its folder.
DATA_SCRIPTS = {
    "fashion-mnist": "data/prepare_fashion_mnist.py",
    "garment-scenes": "data/prepare_garment_scenes.py",
    "tree-crowns": "data/prepare_tree_crowns.py",
}
#: Seconds that a worker may take for a batch; one that hangs would stall the run.
WORKER_TIMEOUT = 600


def dataloaders(
    cfg: Config, stages: Sequence[str] = ("train", "val", "test")
) -> dict[str, ConfigDict]:
    """The config's dataloaders, the kNN banks' included, by their config key."""
    loaders = {}
    for stage in stages:
        loop = cfg.get(f"{stage}_cfg") or {}
        loaders[f"{stage}_dataloader"] = cfg.get(f"{stage}_dataloader")
        loaders[f"{stage}_cfg.bank_dataloader"] = loop.get("bank_dataloader")
    return {key: loader for key, loader in loaders.items() if loader is not None}


def set_dataloader_defaults(cfg: Config, **options: bool | None) -> None:
    """Complete the dataloaders' settings as MMPretrain's tools do.

    Args:
        cfg (Config): Changed in place.
        options (bool | None): ``pin_memory`` and ``persistent_workers``; a value other
            than None wins over the config's.
    """
    # MMDetection and MMSegmentation keep MMEngine's own collate function, in lists.
    mmpretrain = cfg.get("default_scope") not in ("mmdet", "mmseg")
    for loader in dataloaders(cfg).values():
        if mmpretrain:
            loader.setdefault("collate_fn", dict(type="default_collate"))
        # Configs from `mmpretrain::` carry a scope, which MMEngine would pass on to
        # the collate function.
        if "collate_fn" in loader:
            loader.collate_fn.pop("_scope_", None)
        for option, value in options.items():
            if value is not None:
                loader[option] = value
            loader.setdefault(option, True)
        if loader.get("num_workers", 0) == 0:
            loader.persistent_workers = False  # torch refuses it without workers
        else:
            loader.setdefault("timeout", WORKER_TIMEOUT)


def check_data_roots(cfg: Config, stages: Sequence[str] = ("train", "val")) -> None:
    """Check that folders and annotations of each dataset exist, before the start-up.

    Args:
        cfg (Config): The config.
        stages (Sequence[str]): Which of train, val and test are about to run.

    Raises:
        FileNotFoundError: Naming all that is missing, its config keys, and how to set
            them.
    """
    messages = []
    for stage_key, loader in dataloaders(cfg, stages).items():
        for key, dataset in single_datasets(
            loader.get("dataset") or {}, f"{stage_key}.dataset"
        ):
            missing = _find_missing(dataset)
            if missing is None:
                continue
            name, value, root = missing
            message = (
                f"{key}.{name}={value!r} does not exist"
                f"{f' in data_root {root!r}' if root else ''} (working directory: "
                f"{Path.cwd()}). Set it with --cfg-options {key}.{name}="
                f"{'DIR' if name == 'data_root' else 'PATH'}"
                f"{' (own images: --data-root DIR)' * (stage_key[:5] == 'train')}."
            )
            script, folder = _data_script(dataset)
            if script:
                message += f" To make this data: python {MIM}/tools/{script} {folder}"
            if key.startswith("val") and "train" in stages:
                message += " To train without evaluation: --no-validate."
            messages.append(message)
    if messages:
        raise FileNotFoundError("\n".join(messages))


def _find_missing(dataset: ConfigDict) -> tuple[str, str, str] | None:
    """The first thing that is not there: (key, value, root that it is looked up in)."""
    root = dataset.get("data_root") or ""
    values = {"data_root": root, "ann_file": dataset.get("ann_file")}
    prefix = dataset.get("data_prefix")
    if isinstance(prefix, dict):
        values |= {f"data_prefix.{name}": value for name, value in prefix.items()}
    else:
        values["data_prefix"] = prefix
    for name, value in values.items():
        folder = "" if name == "data_root" else root
        if not value or not isinstance(value, str) or "://" in folder + value:
            continue
        if not Path(folder, value).expanduser().exists():
            return name, value, folder
    return None


def _data_script(dataset: ConfigDict) -> tuple[str | None, str]:
    """The tool that makes a small data set of this project, and the folder to give."""
    root = Path(dataset.get("data_root") or "")
    for folder in (root, *root.parents):
        if folder.name in DATA_SCRIPTS:
            return DATA_SCRIPTS[folder.name], str(folder)
    known = dataset.get("type") == "FashionMNIST"
    return (DATA_SCRIPTS["fashion-mnist"] if known else None), str(root)
