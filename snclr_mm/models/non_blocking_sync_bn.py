import torch
import torch.distributed as dist
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as _TorchSyncBatchNorm

from .ops.gather import ALL_GATHER


@MODELS.register_module()
class NonBlockingSyncBN(nn.SyncBatchNorm):
    """torch's SyncBatchNorm, without waiting for the device in each forward pass.

    torch leaves ranks without images out by a boolean mask, and the host waits to learn
    how many are left, three times per call. Here every rank must have images; their
    numbers may differ. Kernels, numbers, backward pass and ``state_dict`` are torch's.

    Args:
        args: As for ``torch.nn.SyncBatchNorm``; ``kwargs`` as well.

    Raises:
        ValueError: In training, for a batch without images.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize with the statistics of all ranks in training.

        Args:
            input (Tensor): [n, C, ...].

        Returns:
            Tensor: Of the same shape.
        """
        synchronized = self.training and dist.is_initialized()
        group = (self.process_group or dist.group.WORLD) if synchronized else None
        # The cumulative average of momentum=None reads a counter from the device.
        if group is None or dist.get_world_size(group) == 1 or self.momentum is None:
            return super().forward(input)
        if input.numel() == 0:
            raise ValueError(
                "This rank's batch is empty, which NonBlockingSyncBN does not take: "
                "set train_dataloader.drop_last=True, or norm_cfg.type='SyncBN'."
            )
        self._check_input_dim(input)
        running = (None, None)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            running = (self.running_mean, self.running_var)
        return _SyncBatchNorm.apply(
            input, self.weight, self.bias, *running, self.eps, self.momentum, group,
            dist.get_world_size(group),
        )  # fmt: skip


class _SyncBatchNorm(_TorchSyncBatchNorm):
    """torch's function; its forward pass without the mask."""

    @staticmethod
    def forward(
        ctx, input, weight, bias, running_mean, running_var, eps, momentum, group, ranks
    ) -> Tensor:
        formats = (torch.channels_last, torch.channels_last_3d)
        if not any(input.is_contiguous(memory_format=f) for f in formats):
            input = input.contiguous()
        mean, invstd = torch.batch_norm_stats(input, eps)
        count = mean.new_full((1,), input.numel() // input.shape[1])
        own = torch.cat([mean, invstd, count])
        everything = own.new_empty(ranks * len(own))
        getattr(dist, ALL_GATHER)(everything, own, group=group)
        means, invstds, counts = everything.view(ranks, -1).split(len(mean), dim=1)
        dtype = counts.dtype if running_mean is None else running_mean.dtype
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            input, means, invstds, running_mean, running_var, momentum, eps,
            counts.flatten().to(dtype),
        )  # fmt: skip
        ctx.save_for_backward(input, weight, mean, invstd, counts.to(torch.int32))
        ctx.process_group = group
        return torch.batch_norm_elemt(input, weight, bias, mean, invstd, eps)
