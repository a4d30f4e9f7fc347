"""The configs that the tools read."""

import argparse
import os
import re
from pathlib import Path

import torch
from mmengine.config import Config

from snclr_mm.registry import MIM


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


def find_config(path: str) -> str:
    """Find a config from any working directory: here, else among the installed ones.

    Raises:
        FileNotFoundError: If there is none, naming both places.
    """
    for candidate in (Path(path), MIM / path):
        if candidate.is_file():
            return str(candidate)
    raise FileNotFoundError(
        f"There is no config {path!r}, neither in {Path.cwd()} nor among those that "
        f"are installed with snclr_mm ({MIM / 'configs'})."
    )


def read_config(path: str) -> Config:
    """Read a config, from here or of those that are installed.

    Raises:
        FileNotFoundError: If there is no such file.
        SystemExit: If the config needs MMDetection or MMSegmentation, and they or the
            ops of mmcv are not installed, or for detectors on a GPU not built for it.
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
    if cfg.get("default_scope") == "mmdet" and torch.cuda.is_available():
        from mmcv.ops import get_compiling_cuda_version

        if get_compiling_cuda_version() == "not available":
            raise SystemExit(
                f"{path} needs mmcv's ops for the GPU, and they were built for CPUs: "
                "build them with FORCE_CUDA=1, as docs/downstream.md says, or set "
                "CUDA_VISIBLE_DEVICES= to run on the CPU."
            )
    return cfg
