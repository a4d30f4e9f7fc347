"""What newer or CPU-only stacks need before mmpretrain can be imported.

Imported first by ``snclr_mm``; each function says what it works around, does nothing
where there is nothing to work around, and has a test.
"""

import functools
import importlib.util
import os
import sys
import warnings
from pathlib import Path

# Read when OpenCV is first imported. Of the 2 ** 30 pixels that it allows, three bytes
# each, a file of 100 kB fills the memory; Pillow allows as many as here.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "178956970")

import mmengine.logging
import torch
from mmengine.config import utils
from mmengine.logging import MMLogger


def define_torchvision_ops() -> bool:
    """Let torchvision be imported beside a CPU-only torch.

    PyPI's torchvision is built for CUDA. Next to a CPU-only torch its C++ library does
    not load, and ``import torchvision`` (which mmpretrain.models needs) fails with
    "operator torchvision::nms does not exist". The schema of that operator is enough
    for the import; calling it still fails, and nothing here calls it. Returns whether
    torchvision could not be imported without this.
    """
    spec = importlib.util.find_spec("torchvision")
    if (
        torch.version.cuda
        or torch.version.hip
        or "torchvision" in sys.modules
        or (spec is None)
    ):
        return False
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(
                    f"torchvision::{name}",
                    "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                )
        return True
    return False


def name_mmseg() -> None:
    """Let ``_base_ = 'mmseg::...'`` find the fork.

    MMEngine maps ``mmseg`` to the distribution ``mmsegmentation``; the fork's is named
    differently, and ``get_config`` would then install the original with pip.
    """
    utils.MODULE2PACKAGE["mmseg"] = "mmseg"


def silence_imports() -> None:
    """Drop notices of parts that nothing here uses, which every command began with.

    mmcv warns that it was built without ops, as pip builds it; the fork of MMDetection,
    which mmpretrain imports where it is installed, that a detector of lanes needs CUDA;
    and the forks print that OneDL, a service for data sets, is not installed, though
    they ask for the log's debug level: ``print_log`` without a logger has none.
    """
    ops = "Fail to import ``MultiScaleDeformableAttention``"
    warnings.filterwarnings("ignore", message=ops)
    MMLogger.get_current_instance().addFilter(
        lambda record: not record.getMessage().startswith("Line NMS is not compiled")
    )
    print_log = mmengine.logging.print_log

    @functools.wraps(print_log)
    def print_log_without_onedl(msg, *args, **kwargs):
        if not str(msg).startswith("Could not import OneDL"):
            print_log(msg, *args, **kwargs)

    mmengine.logging.print_log = print_log_without_onedl


#: Whether torchvision, and with it timm, is imported only after snclr_mm.
TORCHVISION_NEEDS_US = define_torchvision_ops()
name_mmseg()
silence_imports()
