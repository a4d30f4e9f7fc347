import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_query_and_key, check_share


def mean_shift_loss(
    query: Tensor, key: Tensor, neighbors: Tensor, mix: float | str | None = None
) -> Tensor:
    r"""Squared distances of each query to its own key and the key's neighbors.

    With z the query, y its key and NN_i the key's neighbors, all unit rows, mean shift
    (Koohpayegani et al., ICCV 2021) and, with ``mix`` = λ, mixed nearest neighbors
    (Long et al., 2023) are

    .. math:: L = \frac{1}{K + 1} \sum_{i=0}^{K} (2 - 2 z · NN_i), NN_0 = y

    .. math:: L = (2 - 2 z · y) + \frac{1}{K} \sum_{i=1}^{K} (2 - 2 z · m_i),
        m_i = λ NN_i + (1 - λ) y

    With K = 0 the first is BYOL's loss, the second that twice, as with λ = 0. Nothing
    is exchanged between ranks.

    Args:
        query (Tensor): z, [..., m, d], any scale: one or more views, each of the n
            images in order.
        key (Tensor): y, [..., n, d], any scale, taken as constant.
        neighbors (Tensor): NN, unit rows, [..., n, K, d], taken as constant.
        mix (float | str, optional): λ as in :func:`mix_neighbors`.

    Returns:
        Tensor: Mean over the queries, for each leading index; float32, or float64 for
        float64 queries, also under autocast.

    Raises:
        ValueError: If a shape or λ is not as above.
    """
    check_query_and_key(query, key)
    k = neighbors.shape[-2]
    if neighbors.shape != (*key.shape[:-1], k, key.shape[-1]):
        raise ValueError(
            f"neighbors {list(neighbors.shape)} do not fit keys {list(key.shape)}."
        )
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        z = F.normalize(query.to(dtype), dim=-1).unflatten(-2, (-1, key.shape[-2]))
        y = F.normalize(key.detach().to(dtype), dim=-1)
        neighbors = neighbors.detach().to(dtype)
        # Distances of unit rows are linear in each: one product with a sum is enough.
        if mix is None:
            terms, target = 1, (y + neighbors.sum(-2)) / (k + 1)
        else:
            mean = neighbors.mean(-2) if k else y
            terms, target = 2, y + mix_neighbors(y, mean, mix)
        similarity = (z * target.unsqueeze(-3)).sum(-1)  # [..., v, n]
        return 2 * (terms - similarity.flatten(-2).mean(-1))


def mix_neighbors(key: Tensor, neighbors: Tensor, mix: float | str) -> Tensor:
    """Move keys to their neighbors: λ NN + (1 - λ) y / |y|, not normalised again.

    Args:
        key (Tensor): y, [..., n, d], any scale.
        neighbors (Tensor): NN, unit rows or a mean of them, [..., n, d].
        mix (float | str): λ, 0 to 1 (else a ValueError); ``'uniform'`` draws one for
            all from [0, 1).

    Returns:
        Tensor: [..., n, d], float32, or float64 for float64 keys, also under autocast.
    """
    check_share("mix", mix, "uniform")
    weight = torch.rand(()).item() if mix == "uniform" else mix
    dtype = torch.promote_types(key.dtype, torch.float32)
    return torch.lerp(F.normalize(key.to(dtype), dim=-1), neighbors.to(dtype), weight)
