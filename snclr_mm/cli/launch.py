"""What the command-line tools do before the Runner is built."""

import argparse
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.logging import HistoryBuffer
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from snclr_mm.hardware import has_fast_bfloat16

from .annotations import leaves

if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
    from numpy._core import multiarray
else:
    from numpy.core import multiarray

REPOSITORY = Path(__file__).parents[2]
DATA_SCRIPTS = {
    "fashion-mnist": "data/prepare_fashion_mnist.py",
    "garment-scenes": "data/prepare_garment_scenes.py",
    "tree-crowns": "data/prepare_tree_crowns.py",
}


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    parser.add_argument("--work-dir", help="where logs, checkpoints and metrics go")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--no-pin-memory", action="store_true")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold more than tensors and plain data; a pickle "
        "can run any code, so only for files whose source you trust",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help="override settings: key=value; lists as key=a,b or key='[a,b]'",
    )
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)


def load_config(args: argparse.Namespace) -> Config:
    """Load ``args.config``, and set launcher and work_dir."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    return cfg


def read_config(path: str) -> Config:
    """Read a config, from here or the repository.

    Raises:
        FileNotFoundError: If it is in neither.
        SystemExit: If the config needs MMDetection or MMSegmentation, and they or the
            ops of mmcv are not installed.
    """
    file = find_config(path)
    try:
        cfg = Config.fromfile(file)
        if cfg.get("default_scope") in ("mmdet", "mmseg"):
            import mmcv.ops  # noqa: F401
    except ImportError as error:
        if not re.search("mmdet|mmseg|mmcv", str(error)):
            raise
        raise SystemExit(
            f"{path} needs a library that is not installed, or mmcv's ops: {error}\n"
            "Install both as docs/downstream.md says: pip install -e '.[downstream]', "
            "and mmcv built with ops."
        ) from None
    return cfg


@contextmanager
def build_runner(cfg: Config, trust_checkpoint: bool = False) -> Iterator[Runner]:
    """Build the Runner for this machine, and explain what it refuses to load.

    At the end all ranks wait for each other and close the process group: a rank that
    simply exits may abort, and the launcher then kills rank 0 while it still saves.

    Args:
        cfg (Config): Complete; changed in place.
        trust_checkpoint (bool): See :func:`load_checkpoints_safely`.
    """
    load_checkpoints_safely(trust=trust_checkpoint)
    notes = adapt_to_machine(cfg)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    for note in notes:
        runner.logger.warning(note)
    try:
        yield runner
    except UnpicklingError as error:
        raise SystemExit(
            f"The checkpoint holds more than tensors and plain data: {error}\n"
            "If you trust its source, pass --trust-checkpoint."
        ) from None
    if cfg.get("launcher", "none") != "none":
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def find_config(path: str) -> str:
    """Find a config from any working directory: here, else in the repository.

    Raises:
        FileNotFoundError: If neither exists, naming both.
    """
    for candidate in (Path(path), REPOSITORY / path):
        if candidate.is_file():
            return str(candidate)
    raise FileNotFoundError(
        f"There is no config {path!r}, neither in {Path.cwd()} nor in {REPOSITORY}."
    )


def load_checkpoints_safely(trust: bool = False) -> None:
    """Make every later ``torch.load`` of this process refuse to run code.

    A checkpoint is a pickle. Only tensors, plain containers and what MMEngine's message
    hub stores (NumPy scalars and HistoryBuffer) are loaded; MMEngine itself falls back
    to an unrestricted load, which this forbids.

    Args:
        trust (bool): Load anything instead, for files whose source one trusts
            (``--trust-checkpoint``). Defaults to False.
    """
    on, off = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if trust:
        on, off = off, on
    os.environ[on] = "1"
    os.environ.pop(off, None)
    types = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "uint32")]
    torch.serialization.add_safe_globals(
        [
            # With names, as MMEngine's own loading takes the bare classes off the list.
            *(
                (cls, f"{cls.__module__}.{cls.__qualname__}")
                for cls in (HistoryBuffer, np.ndarray, np.dtype, *types)
            ),
            # HistoryBuffer pickles its statistics as getattr(HistoryBuffer, name).
            (_history_buffer_method, "builtins.getattr"),
            # NumPy 1 and 2 call the same functions by different names.
            *(
                (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
                for core in ("core", "_core")
                for name in ("_reconstruct", "scalar")
            ),
        ]
    )


def _history_buffer_method(owner: type, name: str):
    if owner is not HistoryBuffer or name not in ("mean", "max", "min", "current"):
        raise ValueError(f"A checkpoint may not use getattr({owner}, {name!r}).")
    return getattr(HistoryBuffer, name)


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
    mmpretrain = cfg.get("default_scope", "mmpretrain") == "mmpretrain"
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


def check_data_roots(cfg: Config, stages: Sequence[str] = ("train", "val")) -> None:
    """Check that folders and annotations of each dataset exist, before the start-up.

    Args:
        cfg (Config): The config.
        stages (Sequence[str]): Which of train, val and test are about to run.

    Raises:
        FileNotFoundError: Naming what is missing, its config key, and how to set it.
    """
    for stage_key, loader in dataloaders(cfg, stages).items():
        for key, dataset in leaves(loader.get("dataset") or {}, f"{stage_key}.dataset"):
            missing = _find_missing(dataset)
            if missing is None:
                continue
            name, value, root = missing
            message = (
                f"{key}.{name}={value!r} does not exist"
                f"{f' in data_root {root!r}' if root else ''} (working directory: "
                f"{Path.cwd()}). Set it with --cfg-options {key}.{name}="
                f"{'DIR' if name == 'data_root' else 'PATH'}."
            )
            script, folder = _data_script(dataset)
            if script:
                script = REPOSITORY / "tools" / script
                message += f" To make this data: python {script} {folder}"
            if key.startswith("val") and "train" in stages:
                message += " To train without evaluation: --no-validate."
            raise FileNotFoundError(message)


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


def adapt_to_machine(cfg: Config) -> list[str]:
    """Let a config for GPUs run where there is none: same recipe, other means.

    Without an accelerator: AMP becomes full precision, unless it is bfloat16 and the
    CPU has instructions for it; memory is not pinned; and
    ``cfg.launcher`` starts a gloo group whose ranks wrap the model in
    CPUDistributedDataParallel, or for FSDP in CPUFullyShardedDataParallel, which revert
    SyncBN. A ``strategy`` without a launcher is dropped on any machine; otherwise,
    where there is an accelerator, nothing changes.

    Args:
        cfg (Config): Changed in place; ``cfg.launcher`` must be set.

    Returns:
        list[str]: What was changed, for the log.
    """
    notes = []
    if cfg.get("strategy") and cfg.get("launcher", "none") == "none":
        notes.append(f"One process: strategy.type={cfg.strategy.type} is not used.")
        cfg.strategy = None
    if get_device() != "cpu":
        return notes
    wrapper = cfg.get("optim_wrapper")
    if wrapper is not None and wrapper.get("type") == "AmpOptimWrapper":
        dtype = wrapper.get("dtype")
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)
        if str(dtype) not in ("bfloat16", "torch.bfloat16"):
            wrapper.type = "OptimWrapper"
            notes.append("AMP is off: float16 needs an accelerator.")
        elif not has_fast_bfloat16():
            wrapper.type = "OptimWrapper"
            notes.append("AMP is off: no bfloat16 instructions were found.")
        else:
            wrapper.type = "CPUAmpOptimWrapper"
            notes.append("AMP runs in bfloat16 on this CPU.")
    for loader in dataloaders(cfg).values():
        loader.pin_memory = False
    for loop in (cfg.get("val_cfg"), cfg.get("test_cfg")):
        if loop and loop.get("fp16"):
            loop.fp16 = False
            notes.append("Evaluation runs in full precision.")
    if cfg.get("launcher", "none") != "none":
        _init_gloo(cfg.launcher)
        cfg.model_wrapper_cfg = dict(
            type="CPUDistributedDataParallel",
            find_unused_parameters=cfg.get("find_unused_parameters", False),
        )
        if cfg.get("runner_type") == "FlexibleRunner":
            _adapt_strategy(cfg)
        notes.append(
            "Ranks talk over gloo, and SyncBN is reverted to BatchNorm with per-rank "
            "statistics."
        )
    else:
        notes.append("SyncBN, where the model has it, is reverted to BatchNorm.")
    return ["No accelerator was found, training on the CPU.", *notes]


def _adapt_strategy(cfg: Config) -> None:
    """Do for FlexibleRunner's strategy what ``model_wrapper_cfg`` does for Runner."""
    strategy = cfg.get("strategy") or ConfigDict(type="DDPStrategy")
    if strategy.type.endswith("FSDPStrategy"):
        strategy.setdefault("model_wrapper", {})
        strategy.model_wrapper.type = "CPUFullyShardedDataParallel"
        if strategy.get("state_dict_cfg") == "full":
            # "full" offloads to the CPU, which is no copy here: torch (2.13) then frees
            # the parameters it saves, and saves one moment of Adam as the other.
            keep = dict(rank0_only=True, offload_to_cpu=False)
            strategy.state_dict_cfg = dict(
                state_dict_type="FULL_STATE_DICT",
                state_dict_config=dict(type="FullStateDictConfig", **keep),
                optim_state_dict_config=dict(type="FullOptimStateDictConfig", **keep),
            )
    elif strategy.type == "DDPStrategy":
        strategy.model_wrapper = cfg.model_wrapper_cfg
    else:
        raise ValueError(
            f"strategy.type={strategy.type} needs an accelerator: on CPUs use "
            "ResumableFSDPStrategy or DDPStrategy."
        )
    cfg.strategy = strategy


def _init_gloo(launcher: str) -> None:
    if torch.distributed.is_initialized():
        return
    env = os.environ
    if launcher == "slurm":
        env["RANK"] = env["SLURM_PROCID"]
        env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
        env["WORLD_SIZE"] = env["SLURM_NTASKS"]
        env.setdefault("MASTER_PORT", "29500")
        if "MASTER_ADDR" not in env:
            hosts = ["scontrol", "show", "hostnames", env["SLURM_NODELIST"]]
            env["MASTER_ADDR"] = subprocess.check_output(hosts, text=True).split()[0]
    elif launcher != "pytorch":
        raise ValueError(
            f"--launcher {launcher} needs an accelerator: on CPUs use pytorch or slurm."
        )
    torch.distributed.init_process_group("gloo")
