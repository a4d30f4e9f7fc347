from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """MMDistributedDataParallel for ranks without an accelerator.

    Reverts SyncBN, which exists on accelerators only, and takes no device. The
    launcher (:func:`snclr_mm.engine.adapt_to_machine`) chooses it by config.

    Args:
        module (nn.Module): The model.
        kwargs: As for MMDistributedDataParallel, e.g. ``find_unused_parameters``.
    """

    def __init__(self, module: nn.Module, **kwargs) -> None:
        kwargs["device_ids"] = None
        kwargs.setdefault("broadcast_buffers", False)
        super().__init__(module=revert_sync_batchnorm(module), **kwargs)
