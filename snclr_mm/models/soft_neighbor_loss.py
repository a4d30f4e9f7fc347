"""The SNCLR objective as a pure function (Ge et al., ICLR 2023, method section)."""

import math

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor

OBJECTIVES = ("log_of_sum", "sum_of_logs")


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
) -> Tensor:
    r"""Contrastive loss in which neighbors count as soft positives.

    With z the query, NN(y_2)_0 the image's own key, NN(y_2)_i its i-th neighbor,
    l_i = z · NN(y_2)_i / τ and

    .. math:: D = \sum_{j=1}^{N} \sum_{i=0}^{K} \exp(z · NN(y_2^j)_i / τ)

    over all N images of all ranks, the loss of one image is

    - ``log_of_sum`` (the paper's formula): :math:`-\log \sum_i w_i e^{l_i} / D`
    - ``sum_of_logs`` (the authors' code): :math:`-\sum_i w_i \log(e^{l_i} / D)`

    With K = 0 and w_0 = 1 both are InfoNCE. An entry that is a neighbor of c images
    counts c times in D: it is scored once, with log(c) added to its logit.

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

    Returns:
        Tensor: Scalar, the mean over the n local images, in float32 or, for float64
        queries, float64; autocast is off inside.

    Raises:
        ValueError: If a shape, the temperature, the objective or w_0 is not as above.
    """
    _check(
        query, key, neighbor_index, candidates, positiveness,
        temperature, objective, own_positiveness,
    )  # fmt: skip
    n, num_neighbors = neighbor_index.shape
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        z = F.normalize(query.to(dtype), dim=1)
        y = F.normalize((key.detach() if detach_keys else key).to(dtype), dim=1)
        own = n * get_rank() + torch.arange(n, device=z.device)

        key_logits = z @ _AllGather.apply(y).T / temperature  # [n, N]
        if num_neighbors == 0:
            # The mean outside, as MMPretrain has it: equal to MoCoV3Head's to the bit.
            info_nce = F.cross_entropy(key_logits, own, reduction="none").mean()
            if objective == "sum_of_logs":
                return own_positiveness * info_nce
            return info_nce - math.log(own_positiveness)

        # int32 halves what the ranks exchange; a queue never needs more.
        index = torch.cat(all_gather(neighbor_index.int().contiguous()))  # [N, K]
        distinct, slot, count = index.flatten().unique(
            return_inverse=True, return_counts=True
        )
        log_count = count.to(dtype).log()
        # [n, U]: each distinct candidate scored once, log(count) included.
        scores = torch.addmm(
            log_count,
            z,
            candidates.detach()[distinct].to(dtype).T,
            alpha=1 / temperature,
        )
        log_d = torch.logaddexp(key_logits.logsumexp(1), scores.logsumexp(1))
        own_slot = slot.view(-1, num_neighbors)[own]
        logits = torch.cat(  # l_0, ..., l_K: [n, 1 + K]
            [
                key_logits.gather(1, own[:, None]),
                scores.gather(1, own_slot) - log_count[own_slot],
            ],
            dim=1,
        )
        weights = F.pad(positiveness.to(dtype), (1, 0), value=own_positiveness)
        if objective == "sum_of_logs":
            return (weights * (log_d[:, None] - logits)).sum(1).mean()
        zero = weights == 0  # log(0) would make the gradient NaN
        log_weights = weights.masked_fill(zero, 1).log().masked_fill(zero, -torch.inf)
        return (log_d - (logits + log_weights).logsumexp(1)).mean()


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


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless ``value``, of config key ``name``, is finite and > 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value} must be a finite number above 0.")


def _check(
    query, key, neighbor_index, candidates, positiveness,
    temperature, objective, own_positiveness,
):  # fmt: skip
    check_objective(objective)
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
