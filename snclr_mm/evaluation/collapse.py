import torch
import torch.nn.functional as F
from torch import Tensor


def rankme(features: Tensor) -> float:
    r"""Effective rank of a feature matrix: RankMe (Garrido et al., ICML 2023).

    The exponential of the entropy of the normalised singular values:

    .. math:: \exp(-\sum_k p_k \log p_k), \quad p_k = σ_k / \sum_j σ_j + 10^{-7}

    Args:
        features (Tensor): [n, C], not centered. The result is at most min(n, C).

    Returns:
        float: From about 1 (all rows proportional: collapse) to min(n, C).
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    singular_values = torch.linalg.svdvals(features.to(dtype))
    p = F.normalize(singular_values, p=1, dim=0) + 1e-7
    return torch.special.entr(p).sum().exp().item()


def feature_std(features: Tensor) -> float:
    """Standard deviation of the L2-normalised features (SimSiam, Chen & He, CVPR 2021).

    Args:
        features (Tensor): [n, C], n of 2 or more, any scale.

    Returns:
        float: Mean of the C channels' deviations: 0 if all rows point the same way
        (collapse), about 1/sqrt(C) if they point everywhere.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    return F.normalize(features.to(dtype), dim=1).std(dim=0).mean().item()


def positiveness_entropy(weight: Tensor) -> Tensor:
    """Entropy of each image's positiveness, as shares of its sum.

    Args:
        weight (Tensor): w_i, [n, K], K > 0.

    Returns:
        Tensor: [n], float64, nats, at most log K; NaN where a threshold has left no
        neighbor.
    """
    weight = weight.double()
    return torch.special.entr(weight / weight.sum(dim=1, keepdim=True)).sum(dim=1)
