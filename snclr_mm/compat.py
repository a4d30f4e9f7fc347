"""What newer or CPU-only stacks need before mmpretrain can be imported and run.

Imported first by ``snclr_mm``; each function says what it works around, does nothing
where there is nothing to work around, and has a test.
"""

import importlib.util
import inspect
import sys
import warnings
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint


def define_torchvision_ops() -> None:
    """Let torchvision be imported beside a CPU-only torch.

    PyPI's torchvision is built for CUDA. Next to a CPU-only torch its C++ library does
    not load, and ``import torchvision`` (which mmpretrain.models needs) fails with
    "operator torchvision::nms does not exist". The schema of that operator is enough
    for the import; calling it still fails, and nothing here calls it.
    """
    spec = importlib.util.find_spec("torchvision")
    if (
        torch.version.cuda
        or torch.version.hip
        or "torchvision" in sys.modules
        or (spec is None)
    ):
        return
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(
                    f"torchvision::{name}",
                    "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                )


def name_mmseg() -> None:
    """Let ``_base_ = 'mmseg::...'`` find the fork.

    MMEngine maps ``mmseg`` to the distribution ``mmsegmentation``; the fork's is named
    differently, and ``get_config`` would then install the original with pip.
    """
    from mmengine.config import utils

    utils.MODULE2PACKAGE["mmseg"] = "mmseg"


def silence_harmless_warnings() -> None:
    """Drop two warnings that every run would start with.

    mmcv's, at each import, that it was built without ops: pretraining needs none, and
    pip builds mmcv without them. And torch's, that MMPretrain's MNIST reader makes a
    tensor of read-only bytes: nothing writes to it.
    """
    for message in (
        "Fail to import ``MultiScaleDeformableAttention``",
        "The given NumPy array is not writable",
    ):
        warnings.filterwarnings("ignore", message=message)


def checkpoint_without_reentrance() -> None:
    """Let activation checkpointing work under DDP with two views per image.

    MMPretrain's ``with_cp`` and MMEngine's ``activation_checkpointing`` leave it to
    torch which kind of checkpoint they use, and torch takes the old one, with a
    warning. Its backward pass is one of its own for each view, so DDP sees each
    parameter become ready twice, and raises. torch recommends the other kind.
    """
    defaults = inspect.unwrap(checkpoint).__kwdefaults__ or {}
    if defaults.get("use_reentrant", False) is None:
        defaults["use_reentrant"] = False


define_torchvision_ops()
name_mmseg()
silence_harmless_warnings()
checkpoint_without_reentrance()
