import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor

from ..ops import GatherRows, gather_rows
from .checks import check_positive, check_query_and_key


def info_nce(
    query: Tensor,
    key: Tensor,
    temperature: float,
    detach_keys: bool = True,
    all_keys: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE: each query against its own key, other images' keys as negatives.

    .. math:: L = -\log \frac{\exp(z · y / τ)}{\sum_{j=1}^{N} \exp(z · y^j / τ)}

    over the N images of all ranks (van den Oord et al., 2018). Equal to MMPretrain's
    MoCoV3Head to the last bit.

    Args:
        query (Tensor): z, [m, d], any scale: one or more views, each of the n images in
            order.
        key (Tensor): y, [n, d], any scale; the same n on every rank.
        temperature (float): τ > 0.
        detach_keys (bool): Whether the keys are constants. Defaults to True.
        all_keys (Tensor, optional): The keys of all ranks, [N, d], where they are
            already exchanged and constant.

    Returns:
        Tensor: Scalar, the mean over the local queries, in float32 or, for float64
        queries, float64; autocast changes nothing inside.

    Raises:
        ValueError: If a shape or the temperature is not as above.
    """
    check_query_and_key(query, key, dims=2)
    check_positive("temperature (config key model.head.temperature)", temperature)
    n, device = len(key), query.device
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(device.type, enabled=False):
        z = F.normalize(query.to(dtype), dim=1)
        if not detach_keys:
            y = GatherRows.apply(F.normalize(key.to(dtype), dim=1))
        else:
            y = gather_rows(key) if all_keys is None else all_keys
            y = F.normalize(y.to(dtype), dim=1)
        own = n * get_rank() + torch.arange(n, device=device).repeat(len(z) // n)
        # The mean outside, as MMPretrain has it: equal to the bit.
        return F.cross_entropy(z @ y.T / temperature, own, reduction="none").mean()
