from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.utils import get_ori_model
from torch import nn

from snclr_mm.models import MultiLinearHead


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MultiLinearOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Gives each classifier of a MultiLinearHead its own learning rate.

    ``optim_wrapper=dict(constructor='MultiLinearOptimWrapperConstructor', ...)``: what
    ``paramwise_cfg.custom_keys`` with an ``lr_mult`` for each classifier would do, read
    from ``model.head.lr_factors``.

    Args:
        optim_wrapper_cfg (dict): As for DefaultOptimWrapperConstructor.
        paramwise_cfg (dict, optional): Likewise.

    Raises:
        ValueError: If anything but the classifiers would train, or the model's head is
            another.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = get_ori_model(model)
        head = getattr(model, "head", None)
        if not isinstance(head, MultiLinearHead):
            raise ValueError(
                "optim_wrapper.constructor=MultiLinearOptimWrapperConstructor needs "
                f"model.head.type=MultiLinearHead, not {type(head).__name__}."
            )
        others = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and not name.startswith("head.classifiers.")
        ]
        if others:
            raise ValueError(
                "A linear probe trains its classifiers alone, but so would "
                f"{len(others)} other parameters, first {others[0]}: freeze them "
                "(model.backbone.frozen_stages)."
            )
        keys = {
            f"classifiers.{i}.": dict(lr_mult=factor)
            for i, factor in enumerate(head.lr_factors)
        }
        self.paramwise_cfg = {**self.paramwise_cfg, "custom_keys": keys}
        return super().__call__(head)
