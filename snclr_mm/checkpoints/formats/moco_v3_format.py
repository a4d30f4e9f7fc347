from snclr_mm.checkpoints.format import Backbone, Format, tensors_of
from snclr_mm.checkpoints.names import invert, pick

from .timm_format import PAIRS

#: Heads by the name that the training script was given; its ViT-S has 12, not 6.
NUM_HEADS = {"vit_small": 12, "vit_base": 12}


def read(checkpoint: dict, branch: str) -> Backbone:
    """Read facebookresearch/moco-v3's and the SNCLR authors' checkpoints.

    Both save DistributedDataParallel's names of timm's ViT or torchvision's ResNet, on
    which their code builds. The projector sits where the classifier would: ``head`` of
    a ViT, ``fc`` of a ResNet.
    """
    tensors = tensors_of(checkpoint)
    encoder = "base_encoder" if branch == "online" else "momentum_encoder"
    prefix = f"module.{encoder}."
    backbone = pick(tensors, invert(PAIRS), prefix, without=["head", "fc"])
    if not backbone.state:
        raise ValueError(
            f"--from moco-v3 --branch {branch}: the checkpoint has no tensors under "
            f"{prefix!r}; it begins with {', '.join(list(tensors)[:3])}."
        )
    return backbone._replace(
        num_heads=NUM_HEADS.get(checkpoint.get("arch")),
        library="timm" if "cls_token" in backbone.state else "torchvision",
    )


MOCO_V3 = Format(read)
