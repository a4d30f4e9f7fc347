"""MMEngine's model wrappers for ranks without an accelerator.

They revert SyncBN, which exists on accelerators only, and take no device. The launcher
(:func:`snclr_mm.cli.adapt_to_machine`) puts them in the place of MMEngine's.
"""

import torch
from mmengine.model import (
    MMDistributedDataParallel,
    MMFullyShardedDataParallel,
    revert_sync_batchnorm,
)
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """MMDistributedDataParallel for ranks without an accelerator; same arguments."""

    def __init__(self, module: nn.Module, **kwargs) -> None:
        kwargs["device_ids"] = None
        kwargs.setdefault("broadcast_buffers", False)
        super().__init__(module=revert_sync_batchnorm(module), **kwargs)


@MODEL_WRAPPERS.register_module()
class CPUFullyShardedDataParallel(MMFullyShardedDataParallel):
    """MMFullyShardedDataParallel for ranks without an accelerator; same arguments."""

    def __init__(self, module: nn.Module, **kwargs) -> None:
        kwargs["device_id"] = torch.device("cpu")
        super().__init__(module=revert_sync_batchnorm(module), **kwargs)
