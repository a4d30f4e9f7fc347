import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import log_denominator
from .checks import check_positive, check_query_and_key, check_share


def relational_loss(
    query: Tensor,
    key: Tensor,
    candidates: Tensor,
    temperature: float,
    target_temperature: float,
    own_weight: float | None = None,
) -> Tensor:
    r"""Cross-entropy of a query's similarities to all candidates against its key's.

    With z the query, y its key and c_j the candidates,

    .. math:: p_j = \exp(z · c_j / τ) / \sum_k \exp(z · c_k / τ),
        s_j = \exp(y · c_j / τ_t) / \sum_k \exp(y · c_k / τ_t)

    ReSSL (Zheng et al., NeurIPS 2021) is :math:`-\sum_j s_j \log p_j`. SCE (Denize et
    al., WACV 2023), with ``own_weight`` = λ, adds the key as c_0 to p alone, and is
    :math:`-λ \log p_0 - (1 - λ) \sum_{j > 0} s_j \log p_j`; λ = 1 is InfoNCE with the
    candidates as negatives.

    The sum over j is :math:`z · \sum_j s_j c_j / τ`, less the logarithm of p's
    denominator. So both softmaxes are streamed over the candidates, forward and
    backward, and no matrix [m, Q] exists. Nothing is exchanged between ranks.

    Args:
        query (Tensor): z, [..., m, d], any scale: one or more views, each of the n
            images in order.
        key (Tensor): y, [..., n, d], any scale, taken as constant.
        candidates (Tensor): c, unit rows, [Q, d] with Q > 0, taken as constant.
        temperature (float): τ > 0.
        target_temperature (float): τ_t > 0.
        own_weight (float, optional): λ, 0 to 1; None is ReSSL.

    Returns:
        Tensor: Mean over the queries, for each leading index; float32, or float64 for
        float64 queries, also under autocast.

    Raises:
        ValueError: If a shape, a temperature or λ is not as above.
    """
    check_relation(temperature, target_temperature, own_weight)
    check_query_and_key(query, key)
    if candidates.shape != (max(1, len(candidates)), key.shape[-1]):
        raise ValueError(
            f"candidates {list(candidates.shape)} must be [Q, {key.shape[-1]}], Q > 0: "
            "nothing is to learn of an empty queue (config key model.head.queue)."
        )
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        z = F.normalize(query.to(dtype), dim=-1)
        y = F.normalize(key.detach().to(dtype), dim=-1)
        rows = candidates.detach().to(dtype)
        log_d = _log_denominator(z, rows, temperature).unflatten(-1, (-1, y.shape[-2]))
        z = z.unflatten(-2, (-1, y.shape[-2])) / temperature  # [..., v, n, d]
        # Σ s_j c_j is the gradient of the logarithm of s's denominator.
        with torch.enable_grad():
            leaf = (y / target_temperature).requires_grad_()
            (mean,) = torch.autograd.grad(_log_denominator(leaf, rows, 1).sum(), leaf)
        pull = (z * mean.unsqueeze(-3)).sum(-1)  # [..., v, n]
        if own_weight is not None:
            own = (z * y.unsqueeze(-3)).sum(-1)
            log_d = torch.logaddexp(log_d, own)
            pull = own_weight * own + (1 - own_weight) * pull
        return (log_d - pull).flatten(-2).mean(-1)


def check_relation(
    temperature: float, target_temperature: float, own_weight: float | None
) -> None:
    """Raise ValueError unless the settings of :func:`relational_loss` are allowed."""
    check_positive("temperature (config key model.head.temperature)", temperature)
    name = "target_temperature (config key model.head.target_temperature)"
    check_positive(name, target_temperature)
    if own_weight is not None:
        check_share("own_weight", own_weight)


def _log_denominator(z: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Log Σ exp(z · row / τ) over all rows [Q, d], [..., m] for z [..., m, d]."""
    flat = z.flatten(0, -2)
    return log_denominator(flat, rows[:0], rows, None, temperature).view(z.shape[:-1])
