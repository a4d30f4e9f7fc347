import torch
from torch import Tensor


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
