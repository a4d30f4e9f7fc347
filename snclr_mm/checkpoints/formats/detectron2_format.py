from pathlib import Path
from typing import Any

from torch import Tensor, nn

from snclr_mm.checkpoints.architecture import Architecture, ResNetArchitecture, State
from snclr_mm.checkpoints.format import Format
from snclr_mm.checkpoints.names import translate

from .timm_format import TIMM

PAIRS = [
    ("conv1", "stem.conv1"),
    ("bn1", "stem.conv1.norm"),
    *(
        (f"layer{stage}.{{}}.{old}", f"res{stage + 1}.{{}}.{new}")
        for stage in range(1, 5)
        for old, new in (
            ("conv{}", "conv{}"),
            ("bn{}", "conv{}.norm"),
            ("downsample.0", "shortcut"),
            ("downsample.1", "shortcut.norm"),
        )
    ),
]


def write(state: State, architecture: Architecture) -> dict[str, Any]:
    """As detectron2's model zoo has it: matched by the ends of the names.

    So the same file serves FPN (``backbone.bottom_up``), C4 (``backbone``, and ``res5``
    in the box head) and ViTDet (``backbone.net``, timm's names).
    """
    if isinstance(architecture, ResNetArchitecture):
        counters = "num_batches_tracked"  # FrozenBN has none
        state = {k: v for k, v in state.items() if not k.endswith(counters)}
        state = translate(state, PAIRS)
    else:
        state = TIMM.write(state, architecture)
    return {"model": state, "matching_heuristics": True}


def build(architecture: Architecture) -> nn.Module:
    """detectron2's ResNet with FrozenBN."""
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_resnet_backbone

    if not isinstance(architecture, ResNetArchitecture):
        raise ValueError(
            "detectron2's ViT adds relative positions and has no final norm, so its "
            "features cannot be compared: pass --no-verify."
        )
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = architecture.depth
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    if architecture.depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    return build_resnet_backbone(cfg, ShapeSpec(channels=3))


def features(model: nn.Module, image: Tensor) -> Tensor:
    """Of detectron2's own model."""
    return model(image)["res5"]


def usage(path: Path, architecture: Architecture) -> str:
    """With the preprocessing that the weights were trained with."""
    if not isinstance(architecture, ResNetArchitecture):
        return f'train.init_checkpoint="{path}" of a ViTDet config'
    depth = architecture.depth
    narrow = " MODEL.RESNETS.RES2_OUT_CHANNELS 64" if depth < 50 else ""
    return (
        f'MODEL.WEIGHTS "{path}" MODEL.RESNETS.DEPTH {depth}{narrow} '
        "MODEL.RESNETS.STRIDE_IN_1X1 False INPUT.FORMAT RGB "
        "MODEL.PIXEL_MEAN [123.675,116.28,103.53] "
        "MODEL.PIXEL_STD [58.395,57.12,57.375]"
    )


DETECTRON2 = Format(None, write, build, features, usage)
