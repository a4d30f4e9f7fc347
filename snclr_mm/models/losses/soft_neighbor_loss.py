"""The SNCLR objective as a pure function (Ge et al., ICLR 2023, method section)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor

from ..ops import GatherRows, gather_rows, log_denominator
from .checks import check_objective, check_positive, check_query_and_key


class Gathered(NamedTuple):
    """What the ranks exchange: keys [..., N, d], any scale, and rows [..., N, K]."""

    key: Tensor
    index: Tensor


def gather(key: Tensor, neighbor_index: Tensor) -> Gathered:
    """Exchange keys and indices, n (d x bytes of the key's dtype + 4 K) per rank.

    Args:
        key (Tensor): [..., n, d], the same n on every rank; goes in its own dtype.
        neighbor_index (Tensor): [..., n, K], integer; goes in int32.

    Returns:
        Gathered: Those of all ranks, without gradient.
    """
    if neighbor_index.shape[-1] == 0:
        keys = gather_rows(key)
        return Gathered(keys, neighbor_index.new_zeros(*keys.shape[:-1], 0))
    # int32 halves what the ranks exchange; a queue never needs more.
    return Gathered(gather_rows(key), gather_rows(neighbor_index.int()))


def soft_neighbor_loss(
    query: Tensor,
    key: Tensor,
    neighbor_index: Tensor,
    candidates: Tensor,
    positiveness: Tensor,
    temperature: float,
    objective: str = "log_of_sum",
    own_positiveness: float = 1.0,
    detach_keys: bool = True,
    gathered: Gathered | None = None,
) -> Tensor:
    r"""Contrastive loss in which neighbors count as soft positives.

    With z the query, NN(y_2)_0 the image's own key, NN(y_2)_i its i-th neighbor,
    l_i = z · NN(y_2)_i / τ and

    .. math:: D = \sum_{j=1}^{N} \sum_{i=0}^{K} \exp(z · NN(y_2^j)_i / τ)

    over all N images of all ranks, the loss of one image is

    - ``log_of_sum`` (the paper's formula): :math:`-\log \sum_i w_i e^{l_i} / D`
    - ``sum_of_logs`` (the authors' code): :math:`-\sum_i w_i \log(e^{l_i} / D)`

    With K = 0 and w_0 = 1 both are InfoNCE. An entry that is a neighbor of c images
    counts c times in D.

    Keys and indices are gathered over the ranks (neighbors are not), so every rank
    must pass the same ``candidates`` and the same n. Gradients flow to ``query`` and
    ``positiveness``, and with ``detach_keys=False`` to ``key`` from every rank's loss,
    so that averaging over the ranks gives the gradient of the global mean. Where a
    weight is exactly 0, its neighbor is left out of the positives and its weight gets
    no gradient.

    Several directions (x_1 against y_2, x_2 against y_1) are computed together where
    all but ``candidates`` have a leading dimension. Several views against one key
    follow one another in ``query`` and ``positiveness``, which then have m = v n rows.

    Args:
        query (Tensor): z_1, [n, d], floating point, any scale.
        key (Tensor): y_2, [n, d], any scale; constant unless ``detach_keys=False``.
        neighbor_index (Tensor): rows of ``candidates``, [n, K], integer.
        candidates (Tensor): unit rows, [Q, d], taken as constant.
        positiveness (Tensor): w_i, [n, K], not negative.
        temperature (float): τ > 0.
        objective (str): ``'log_of_sum'`` or ``'sum_of_logs'``.
        own_positiveness (float): w_0 > 0.
        detach_keys (bool): Whether the keys are constants, as behind a momentum
            encoder. Defaults to True.
        gathered (Gathered, optional): What :func:`gather` made of ``key`` and
            ``neighbor_index``, where that is already exchanged; it must be of these
            very tensors. With ``detach_keys=False`` keys are gathered once more, for
            their gradient.

    Returns:
        Tensor: Scalar, the mean over the n local images, in float32 or, for float64
        queries, float64; of several directions one value each. Under autocast products
        with other images' neighbors take its precision, as all of MMPretrain's
        MoCoV3Head do; nothing else does.

    Raises:
        ValueError: If a shape, the temperature, the objective or w_0 is not as above.
    """
    _check(
        query, key, neighbor_index, candidates, positiveness,
        temperature, objective, own_positiveness,
    )  # fmt: skip
    if gathered is None:
        gathered = gather(key, neighbor_index)
    if query.dim() == 2:
        loss = soft_neighbor_loss(
            query[None], key[None], neighbor_index[None], candidates,
            positiveness[None], temperature, objective, own_positiveness, detach_keys,
            Gathered(gathered.key[None], gathered.index[None]),
        )  # fmt: skip
        return loss[0]

    dtype = torch.promote_types(query.dtype, torch.float32)
    device, n = query.device.type, key.shape[1]
    products_dtype = dtype
    if torch.is_autocast_enabled(device) and dtype == torch.float32:
        products_dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        z = F.normalize(query.to(dtype), dim=-1)  # [D, m, d]
        if detach_keys:
            y = F.normalize(gathered.key.to(dtype), dim=-1)  # [D, N, d]
        else:
            y = GatherRows.apply(F.normalize(key.to(dtype), dim=-1))
        candidates = candidates.detach().to(dtype)
        log_d = [
            _log_denominator(z_a, y_a, candidates, index, temperature, products_dtype)
            for z_a, y_a, index in zip(z, y, gathered.index, strict=True)
        ]
        log_d = torch.stack(log_d)  # [D, m]

        # l_0, ..., l_K of each view: [D, v, n, 1 + K].
        views = z.unflatten(1, (-1, n))
        own = y[:, None, get_rank() * n :][:, :, :n]
        own_logit = (views * own).sum(-1, keepdim=True)
        neighbors = candidates[neighbor_index]
        logits = torch.einsum("avnd,ankd->avnk", views, neighbors)
        logits = torch.cat([own_logit, logits], dim=-1).flatten(1, 2) / temperature
        weights = F.pad(positiveness.to(dtype), (1, 0), value=own_positiveness)
        if objective == "sum_of_logs":
            return (weights * (log_d[..., None] - logits)).sum(-1).mean(-1)
        zero = weights == 0  # log(0) would make the gradient NaN
        log_weights = weights.masked_fill(zero, 1).log().masked_fill(zero, -torch.inf)
        return (log_d - (logits + log_weights).logsumexp(-1)).mean(-1)


def _log_denominator(
    z: Tensor, y: Tensor, candidates: Tensor, index: Tensor, temperature: float,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Log D [m] of unit z [m, d], keys [N, d] and the rows of their neighbors."""
    if not y.requires_grad:
        return log_denominator(z, y, candidates, index, temperature, dtype)
    of_keys = (z @ y.T / temperature).logsumexp(1)
    if index.numel() == 0:
        return of_keys
    rest = log_denominator(z, y[:0], candidates, index, temperature, dtype)
    return torch.logaddexp(of_keys, rest)


def _check(
    query, key, neighbor_index, candidates, positiveness,
    temperature, objective, own_positiveness,
):  # fmt: skip
    check_objective(objective)
    check_positive("temperature (config key model.head.temperature)", temperature)
    check_positive(
        "own_positiveness (config key model.head.own_positiveness)", own_positiveness
    )
    check_query_and_key(query, key)
    if neighbor_index.shape[:-1] != key.shape[:-1]:
        raise ValueError(
            f"neighbor_index {list(neighbor_index.shape)} must be [n, K] with "
            f"n = {key.shape[-2]}."
        )
    if positiveness.shape != (*query.shape[:-1], neighbor_index.shape[-1]):
        raise ValueError(
            f"positiveness {list(positiveness.shape)} must have a weight for each "
            f"query {list(query.shape)} and neighbor_index "
            f"{list(neighbor_index.shape)}."
        )
    if candidates.dim() != 2 or candidates.shape[1] != query.shape[-1]:
        raise ValueError(
            f"candidates {list(candidates.shape)} must be [Q, {query.shape[-1]}]: the "
            "queue's width (model.head.queue.dim) is the projector's output width "
            "(model.neck.out_channels)."
        )
