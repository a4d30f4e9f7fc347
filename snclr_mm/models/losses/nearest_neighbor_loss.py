import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import gather_rows, log_denominator
from .checks import check_positive, check_query_and_key
from .info_nce import info_nce


def nearest_neighbor_loss(
    query: Tensor,
    neighbors: Tensor,
    temperature: float,
    symmetric: bool = False,
    all_neighbors: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE of each query against its key's neighbors in place of the key.

    With z the query and NN_i its key's i-th neighbor,

    .. math:: L = -\frac{1}{K} \sum_{i=1}^{K} \log
        \frac{\exp(z · NN_i / τ)}{\sum_{j=1}^{N} \sum_{k=1}^{K} \exp(z · NN_k^j / τ)}

    over the N images of all ranks (Dwibedi et al., ICCV 2021, has K = 1). Their
    ``symmetric`` form has the same over columns, where :math:`\sum_{j=1}^{N} \exp(z^j ·
    NN_i / τ)` is the denominator; here it is the mean of both, so that its scale stays.

    Args:
        query (Tensor): z, [m, d], any scale: one or more views, each of the n images in
            order.
        neighbors (Tensor): NN, [n, K, d], K > 0, any scale, taken as constant; the same
            n on every rank.
        temperature (float): τ > 0.
        symmetric (bool): As above; exchanges the queries, too. Defaults to False.
        all_neighbors (Tensor, optional): The neighbors of all ranks, [N, K, d], where
            they are known.

    Returns:
        Tensor: Scalar, the mean over the local queries; float32, or float64 for float64
        queries, also under autocast.

    Raises:
        ValueError: If a shape or the temperature is not as above.
    """
    if neighbors.dim() != 3 or neighbors.shape[1] == 0:
        raise ValueError(f"neighbors {list(neighbors.shape)} must be [n, K, d], K > 0.")
    check_query_and_key(query, neighbors[:, 0], dims=2)
    check_positive("temperature (config key model.head.temperature)", temperature)
    if all_neighbors is None:
        all_neighbors = gather_rows(neighbors.flatten(1))
    everyone = all_neighbors.reshape(-1, query.shape[1])
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        z, own = (F.normalize(x.to(dtype), dim=-1) for x in (query, neighbors.detach()))
        everyone = F.normalize(everyone.to(dtype), dim=-1)
        log_d = log_denominator(z, everyone, everyone[:0], None, temperature)
        views = z.view(-1, len(own), z.shape[1])  # [v, n, d]
        loss = log_d.mean() - (views * own.mean(1)).sum(-1).mean() / temperature
        if symmetric:
            rows = own.transpose(0, 1).flatten(0, 1)  # first neighbors, then second
            columns = [info_nce(rows, z_v, temperature, False) for z_v in views]
            loss = (loss + torch.stack(columns).mean()) / 2
        return loss
