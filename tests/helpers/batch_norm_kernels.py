"""What torch's CUDA kernels of SyncBatchNorm compute, in plain operations."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch


def rows(x):
    """[n, C, ...] as [C, n * ...], in float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x.transpose(0, 1).flatten(1)


def like(x, value):
    """[C] for broadcasting over [n, C, ...]."""
    return value.view(1, -1, *[1] * (x.dim() - 2))


def batch_norm_stats(x, eps):
    var, mean = torch.var_mean(rows(x), dim=1, correction=0)
    return mean, (var + eps).rsqrt()


def batch_norm_gather_stats_with_counts(
    x, means, invstds, running_mean, running_var, momentum, eps, counts
):
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(0)
    var = (share * (invstds**-2 - eps + (means - mean) ** 2)).sum(0)
    if running_mean is not None:
        unbiased = var * counts.sum() / (counts.sum() - 1)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(unbiased, momentum)
    return mean, (var + eps).rsqrt()


def batch_norm_elemt(x, weight, bias, mean, invstd, eps):
    result = (x - like(x, mean)) * like(x, invstd)
    if weight is not None:
        result = result * like(x, weight) + like(x, bias)
    return result.to(x.dtype)


def batch_norm_backward_reduce(grad, x, mean, invstd, weight, *needed):
    sum_dy = rows(grad).sum(1)
    sum_dy_xmu = (rows(grad) * (rows(x) - mean[:, None])).sum(1)
    return sum_dy, sum_dy_xmu, sum_dy_xmu * invstd, sum_dy


def batch_norm_backward_elemt(
    grad, x, mean, invstd, weight, sum_dy, sum_dy_xmu, counts
):
    scale = invstd if weight is None else invstd * weight
    grad = grad - like(x, sum_dy) / counts.sum()
    slope = like(x, invstd**2 * sum_dy_xmu) / counts.sum()
    return ((grad - (x - like(x, mean)) * slope) * like(x, scale)).to(x.dtype)


KERNELS = (
    batch_norm_stats,
    batch_norm_gather_stats_with_counts,
    batch_norm_elemt,
    batch_norm_backward_reduce,
    batch_norm_backward_elemt,
)


@contextmanager
def batch_norm_kernels():
    """Put them in the place of torch's, which only GPUs have."""
    with ExitStack() as stack:
        for kernel in KERNELS:
            stack.enter_context(mock.patch.object(torch, kernel.__name__, kernel))
        yield
