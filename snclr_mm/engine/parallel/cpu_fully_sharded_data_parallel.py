import torch
from mmengine.model import MMFullyShardedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class CPUFullyShardedDataParallel(MMFullyShardedDataParallel):
    """MMFullyShardedDataParallel for ranks without an accelerator.

    Reverts SyncBN, which exists on accelerators only, and takes no device. The
    launcher (:func:`snclr_mm.engine.adapt_to_machine`) puts it in its place.

    Args:
        module (nn.Module): The model.
        kwargs: As for MMFullyShardedDataParallel, e.g. ``auto_wrap_policy``.
    """

    def __init__(self, module: nn.Module, **kwargs) -> None:
        kwargs["device_id"] = torch.device("cpu")
        super().__init__(module=revert_sync_batchnorm(module), **kwargs)
