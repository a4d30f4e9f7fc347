from mmengine.registry import FUNCTIONS
from mmpretrain.models import NonLinearNeck
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.models.backbones.resnet import BasicBlock, Bottleneck
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn


@FUNCTIONS.register_module()
def fsdp_wrap_policy(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """The ``auto_wrap_policy`` of FSDP for SNCLR and MoCoV3.

    Backbones and projectors are units of their own, and so is each layer of a ViT and
    each block of a ResNet. This makes the online and the momentum branch equal units:
    the moving average is then taken shard by shard and nothing has to be gathered.
    What both would share with the rest of the model, in the root unit, would be
    gathered during the forward pass, and its average lost after it.

    Args:
        module (nn.Module): Asked about.
        recurse (bool): Whether FSDP asks if it should look inside.
        nonwrapped_numel (int): Not used.

    Returns:
        bool: Whether to look inside, which is always so, or to make it a unit.
    """
    return recurse or isinstance(module, UNITS)


UNITS = (BaseBackbone, NonLinearNeck, TransformerEncoderLayer, Bottleneck, BasicBlock)
