"""The SNCLR objective as a pure function (Ge et al., ICLR 2023, method section)."""

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor

from ..hardware import check_memory
from .backends import check_backend, fall_back
from .log_denominator import log_denominator
from .neighbor_products import neighbor_products

OBJECTIVES = ("log_of_sum", "sum_of_logs")
BACKENDS = ("auto", "plain", "streaming")

# Below this many logits the plain version is faster (measured).
SMALL = 2**18


class Gathered(NamedTuple):
    """What the ranks exchange: keys [N, d], any scale, and queue rows [N, K]."""

    key: Tensor
    index: Tensor


def gather(key: Tensor, neighbor_index: Tensor) -> Gathered:
    """Exchange keys and indices, n (d x bytes of the key's dtype + 4 K) per rank.

    Args:
        key (Tensor): [n, d], the same n on every rank; goes in its own dtype.
        neighbor_index (Tensor): [n, K], integer; goes in int32.

    Returns:
        Gathered: Those of all ranks, without gradient.
    """
    keys = torch.cat(all_gather(key.detach().contiguous()))
    if neighbor_index.shape[1] == 0:
        return Gathered(keys, neighbor_index.new_zeros(len(keys), 0))
    # int32 halves what the ranks exchange; a queue never needs more.
    index = torch.cat(all_gather(neighbor_index.int().contiguous()))
    return Gathered(keys, index)


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
    backend: str = "auto",
    precision: str = "float32",
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
        backend (str): How D is computed.

            - ``plain``: as it is written, all N(K + 1) logits of an image in one row.
            - ``streaming``: each distinct candidate is scored once, with log(c) added
              to its logit, in chunks that keep no [n, N(K + 1)] matrix.
            - ``auto``: ``plain`` for few logits, else ``streaming``; ``plain``, with
              one warning, where that fails. The default.
        precision (str): Of the products of queries with other images' neighbors in
            ``streaming``: ``'float32'``, ``'float16'``, ``'bfloat16'``, or ``'auto'``,
            autocast's where it is on, as MMPretrain's MoCoV3Head has it. Keys and own
            neighbors keep float32. Defaults to ``'float32'``.

    Returns:
        Tensor: Scalar, the mean over the n local images, in float32 or, for float64
        queries, float64; but for ``precision='auto'`` autocast changes nothing inside.

    Raises:
        ValueError: If a shape, the temperature, the objective, w_0, the backend or the
            precision is not as above.
        MemoryError: If the plain version's logits cannot fit.
    """
    _check(
        query, key, neighbor_index, candidates, positiveness,
        temperature, objective, own_positiveness, backend, precision,
    )  # fmt: skip
    n, num_neighbors = neighbor_index.shape
    device = query.device
    dtype = torch.promote_types(query.dtype, torch.float32)
    reduced = _reduced(precision, device, dtype)
    if gathered is None:
        gathered = gather(key, neighbor_index)
    with torch.autocast(device.type, enabled=False):
        z = F.normalize(query.to(dtype), dim=1)
        own = n * get_rank() + torch.arange(n, device=device)
        if detach_keys:
            y = F.normalize(gathered.key.to(dtype), dim=1)  # [N, d]
        else:
            y = _AllGather.apply(F.normalize(key.to(dtype), dim=1))
        if num_neighbors == 0:
            # The mean outside, as MMPretrain has it: equal to MoCoV3Head's to the bit.
            key_logits = z @ y.T / temperature  # [n, N]
            info_nce = F.cross_entropy(key_logits, own, reduction="none").mean()
            if objective == "sum_of_logs":
                return own_positiveness * info_nce
            return info_nce - math.log(own_positiveness)

        candidates = candidates.detach()
        log_d = _log_d(z, y, candidates, gathered.index, temperature, backend, reduced)
        logits = torch.cat(  # l_0, ..., l_K: [n, 1 + K]
            [
                (z * y[own]).sum(1, keepdim=True),
                neighbor_products(z, candidates, neighbor_index),
            ],
            dim=1,
        )
        logits = logits / temperature
        weights = F.pad(positiveness.to(dtype), (1, 0), value=own_positiveness)
        if objective == "sum_of_logs":
            return (weights * (log_d[:, None] - logits)).sum(1).mean()
        zero = weights == 0  # log(0) would make the gradient NaN
        log_weights = weights.masked_fill(zero, 1).log().masked_fill(zero, -torch.inf)
        return (log_d - (logits + log_weights).logsumexp(1)).mean()


def _log_d(
    z: Tensor, y: Tensor, candidates: Tensor, index: Tensor, temperature: float,
    backend: str, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Log D [n] of unit z [n, d], keys [N, d] and neighbors' rows [N, K]."""
    automatic = backend == "auto"
    if automatic:
        few = len(z) * (len(y) + index.numel()) < SMALL
        backend = "plain" if few else "streaming"
    plain = partial(_log_d_plain, z, y, candidates, index, temperature)
    streaming = partial(_log_d_streaming, z, y, candidates, index, temperature, dtype)
    if backend == "plain":
        return plain()
    return fall_back("streaming loss", streaming, plain) if automatic else streaming()


def _log_d_plain(
    z: Tensor, y: Tensor, candidates: Tensor, index: Tensor, temperature: float
) -> Tensor:
    logits, rows = len(z) * (len(y) + index.numel()), index.numel() * z.shape[1]
    check_memory(
        (3 * logits + 2 * rows) * z.element_size(),
        z.device,
        f"The plain loss of {len(z)} images, {len(y)} keys and {index.shape[1]} "
        "neighbors each",
        "set model.head.backend='auto', or fewer neighbors (model.head.num_neighbors).",
    )
    everything = torch.cat([y, candidates[index.flatten()].to(y.dtype)])
    return (z @ everything.T / temperature).logsumexp(1)


def _log_d_streaming(
    z: Tensor, y: Tensor, candidates: Tensor, index: Tensor, temperature: float,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    if y.requires_grad:
        log_keys = (z @ y.T / temperature).logsumexp(1)
    else:
        log_keys = log_denominator(z, y, temperature)
    index = index.flatten()
    distinct = log_count = None
    if z.device.type == "cpu" or len(index) > len(candidates) // 2:
        count = torch.zeros(len(candidates), device=z.device, dtype=torch.int32)
        count.index_add_(0, index, torch.ones_like(index, dtype=torch.int32))
        log_count = count.to(z.dtype).log()
        if z.device.type == "cpu":
            # Elsewhere one would wait for the device to learn how many there are.
            distinct = count.nonzero()[:, 0]
            log_count = log_count[distinct]
    else:
        distinct = index  # repeated as often as it counts
    log_neighbors = log_denominator(
        z, candidates, temperature, distinct, log_count, dtype
    )
    return torch.logaddexp(log_keys, log_neighbors)


def _reduced(precision: str, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    if dtype == torch.float64:
        return dtype
    if precision != "auto":
        return getattr(torch, precision)
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return dtype


class _AllGather(torch.autograd.Function):
    """Rows of all ranks; backward sums what all ranks' losses say about a row."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        return torch.cat(all_gather(rows))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        all_reduce(grad)
        return grad.chunk(get_world_size())[get_rank()]


def check_objective(objective: str) -> None:
    """Raise ValueError unless ``objective`` is one of :data:`OBJECTIVES`."""
    if objective not in OBJECTIVES:
        raise ValueError(
            f"objective={objective!r} is unknown: use one of {OBJECTIVES} "
            "(config key model.head.objective)."
        )


def check_loss(backend: str, precision: str) -> None:
    """Raise ValueError unless both are known."""
    check_backend(backend, precision, BACKENDS, "model.head.")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless ``value``, of config key ``name``, is finite and > 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value} must be a finite number above 0.")


def _check(
    query, key, neighbor_index, candidates, positiveness,
    temperature, objective, own_positiveness, backend, precision,
):  # fmt: skip
    check_objective(objective)
    check_loss(backend, precision)
    check_positive("temperature (config key model.head.temperature)", temperature)
    check_positive(
        "own_positiveness (config key model.head.own_positiveness)", own_positiveness
    )
    if query.dim() != 2 or query.shape != key.shape:
        raise ValueError(
            f"query {list(query.shape)} and key {list(key.shape)} must both be [n, d]."
        )
    if neighbor_index.dim() != 2 or neighbor_index.shape[0] != query.shape[0]:
        raise ValueError(
            f"neighbor_index {list(neighbor_index.shape)} must be [n, K] with "
            f"n = {query.shape[0]}."
        )
    if positiveness.shape != neighbor_index.shape:
        raise ValueError(
            f"positiveness {list(positiveness.shape)} must have the shape of "
            f"neighbor_index {list(neighbor_index.shape)}."
        )
    if candidates.dim() != 2 or candidates.shape[1] != query.shape[1]:
        raise ValueError(
            f"candidates {list(candidates.shape)} must be [Q, {query.shape[1]}]: the "
            "queue's width (model.head.queue.dim) is the projector's output width "
            "(model.neck.out_channels)."
        )
