#!/usr/bin/env python
"""Time what neighbors cost: search, positiveness and loss, both views and backward.

(a) authors    as the authors' code does it: the queue on the host, not normalised,
               copied to the device and normalised at each call; neighbors gathered from
               it, and those of all images put in one matrix
(b) direct     the same formulas on a queue of unit rows on the device
(c) lightly    lightly's NNMemoryBankModule and NTXentLoss, one neighbor (NNCLR): a
               peer, not the same loss; left out where lightly is not installed
(d) snclr_mm   SoftNeighborHead, as configs build it

Features are drawn. Other ranks (N > n) are simulated: their keys and neighbors are made
beforehand, and each way pays for what it does with them. A step ends with the queue's
update. (a) and (d) must agree with (b) in neighbors, loss and gradients; where they do
not, the run goes on and the exit status tells.
"""

import argparse
import contextlib
import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from unittest import mock

import report
import torch
import torch.distributed as dist
import torch.nn.functional as F
from measuring import Record, interleave, make_head, make_parser, peak_bytes, summary
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from snclr_mm.models import SoftNeighborHead
from snclr_mm.models.ops.gather import ALL_GATHER

TARGET = dict(n=256, N=256, K=30, Q=65536, d=256)
GPU_TARGET = dict(n=256, N=4096, K=30, Q=128000, d=256)
VARIED = dict(
    Q=(2**14, 2**16, 2**18, 2**20),
    K=(0, 1, 10, 30, 100, 128),
    N=(2**8, 2**10, 2**12, 2**14, 2**16),
    d=(128, 512),
)
# Rows whose similarities differ by less are equally near: by the rounding of products
# in float32, and on GPUs of those in half precision that shortlist rows.
EQUALLY_NEAR = {"cpu": 1e-5, "cuda": 4e-3}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        __doc__.split("\n\n")[0], "benchmark_loss.json",
        rounds=(9, "timed steps of each way"),
        max_gib=(4.0, "leave out what needs more than this"),
    )  # fmt: skip
    for name, meaning in (
        ("n", "images of this rank"), ("N", "images of all ranks"), ("K", "neighbors"),
        ("Q", "queue rows"), ("d", "feature width"),
    ):  # fmt: skip
        parser.add_argument(f"-{name}", type=int, nargs="+", help=meaning)
    parser.add_argument(
        "--features", choices=["random", "clusters"], default="random",
        help="random directions share the fewest neighbors; clusters: 100 of them",
    )  # fmt: skip
    parser.add_argument(
        "--projection", choices=["identity", "linear"], default="linear"
    )
    parser.add_argument(
        "--autocast", choices=["float16", "bfloat16"],
        help="run the steps under autocast; (d) then reduces its precision as well",
    )  # fmt: skip
    args = parser.parse_args(argv)
    for size in sizes(args):
        if size["N"] % size["n"]:
            parser.error(f"-N {size['N']} must be a multiple of -n {size['n']}")
    return args


def sizes(args: argparse.Namespace) -> list[dict]:
    """The given sizes, each combination; or the targets and one size at a time."""
    base = GPU_TARGET if args.device == "cuda" else TARGET
    given = {k: getattr(args, k) for k in TARGET if getattr(args, k)}
    if given:
        combinations = itertools.product(*given.values())
        chosen = [dict(zip(given, values, strict=True)) for values in combinations]
        return [{**base, "N": c.get("n", base["N"]), **c} for c in chosen]
    others = [{**base, name: v} for name, values in VARIED.items() for v in values]
    return [base, *(size for size in others if size != base)]


def nearest(keys: Tensor, rows: Tensor, k: int) -> Tensor:
    """Index [m, k] of the unit rows nearest to each key, from all products."""
    return (F.normalize(keys, dim=1) @ rows.T).topk(k, dim=1).indices


class Batch:
    """Features of one step: y_1, y_2 and keys of both views; other ranks' share.

    The other ranks have the same keys in both views.
    """

    def __init__(self, n, N, K, Q, d, args) -> None:
        device = args.device
        generator = torch.Generator(device).manual_seed(0)
        normal = partial(torch.randn, generator=generator, device=device)
        centers = F.normalize(normal(100, d), dim=1)

        def draw(count: int) -> Tensor:
            if args.features == "random":
                return normal(count, d)
            label = torch.randint(100, (count,), generator=generator, device=device)
            return centers[label] + normal(count, d) / d**0.5

        self.rows = F.normalize(draw(Q), dim=1)
        self.y = [draw(n).requires_grad_() for _ in range(2)]
        self.key = [draw(n) for _ in range(2)]
        self.other_key = draw(N - n)
        # Searching for 65536 keys would take longer than all timings: for the first
        # few, and the others take theirs, shifted.
        few = [nearest(part, self.rows, K) for part in self.other_key[:2048].split(256)]
        number = torch.arange(N - n, device=device)
        index = torch.cat(few)[number % 2048] + 977 * (number // 2048)[:, None]
        self.other_index = index.remainder(Q).int()


@contextlib.contextmanager
def simulated_ranks(batch: Batch, n: int, N: int):
    """Let collectives answer as if N / n ranks took part, of which this is the first.

    All ranks' rows are this one's and the batch's other keys or, for integers, indices.
    """

    def all_gather(everything: Tensor, rows: Tensor, *args, **kwargs) -> None:
        other = batch.other_key if rows.is_floating_point() else batch.other_index
        everything = everything.view(N // n, *rows.shape)  # [ranks, ..., n, d]
        everything[0] = rows
        by_rank = other.unflatten(0, (N // n - 1, *[1] * (rows.dim() - 2), n))
        everything[1:] = by_rank  # the same in each view

    backend = "nccl" if batch.rows.is_cuda else "gloo"
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=N // n)
    with (
        mock.patch.object(dist, ALL_GATHER, all_gather),
        # MMEngine asks it on which device tensors travel.
        mock.patch.object(dist, "get_backend", lambda group=None: backend),
    ):
        try:
            yield
        finally:
            dist.destroy_process_group()


class Way(NamedTuple):
    """Loss of both views, the queue's update, and neighbors [n, K] of keys [n, d]."""

    loss: Callable[..., Tensor]
    update: Callable[[], None] = lambda: None
    search: Callable[[Tensor], Tensor] | None = None


def direct(batch: Batch, head: SoftNeighborHead, host: bool = False) -> Way:
    """(b), and with ``host`` (a). Its loss can be told what was found for each key."""
    K, attention, temperature = head.num_neighbors, head.attention, head.temperature
    # Not normalised, as the authors keep it; the directions are the same.
    queue = 3 * batch.rows.cpu() if host else batch.rows.clone()
    # What the other ranks send: their neighbors themselves.
    keys = F.normalize(batch.other_key, dim=1)[:, None]
    others = torch.cat([keys, batch.rows[batch.other_index]], 1)
    pointer = 0

    def unit_rows() -> Tensor:
        if not host:
            return queue
        return F.normalize(queue.to(batch.rows.device, copy=True), dim=1)

    def objective(z: Tensor, key: Tensor, index: Tensor, rows: Tensor) -> Tensor:
        """log_of_sum as the paper writes it, one [n, N(K + 1)] matrix for D."""
        z, neighbors = F.normalize(z, dim=1), rows[index]
        q, k = z, neighbors
        if isinstance(attention.f_1, torch.nn.Linear):
            q, k = q @ attention.f_1.weight.T, k @ attention.f_2.weight.T
        weight = torch.einsum("nd,nkd->nk", q, k).softmax(1)
        weight = F.pad(weight, (1, 0), value=1.0)
        own = torch.cat([F.normalize(key, dim=1)[:, None], neighbors], dim=1)
        everything = torch.cat([own, others]).flatten(0, 1)
        own = torch.einsum("nd,nkd->nk", z, own) / temperature
        log_d = (z @ everything.T / temperature).logsumexp(1)
        return (log_d - (own + weight.log()).logsumexp(1)).mean()

    def loss(found: list[Tensor] | None = None) -> Tensor:
        losses = []
        for view, y in zip((1, 0), batch.y, strict=True):
            key, rows = batch.key[view], unit_rows()
            index = found[view] if found else nearest(key, rows, K)
            losses.append(objective(y, key, index, rows))
        return sum(losses)

    def update() -> None:
        nonlocal pointer
        for key in batch.key[:1] if host else batch.key:
            if not host:
                key = F.normalize(torch.cat([key, batch.other_key]), dim=1)
            key = key.to(queue.device)[-len(queue) :]
            rows = torch.arange(len(key), device=key.device) + pointer
            queue[rows % len(queue)] = key
            pointer += len(key)

    return Way(loss, update, lambda key: nearest(key, unit_rows(), K))


def lightly(batch: Batch, head: SoftNeighborHead) -> Way:
    """(c). The second look-up updates its queue."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import NNMemoryBankModule

    (y_1, y_2), (key_1, key_2), rows = batch.y, batch.key, batch.rows
    bank = NNMemoryBankModule(size=tuple(rows.shape)).to(rows.device)
    bank(key_1, update=True)  # builds the bank
    bank.bank.copy_(rows if bank.bank.shape == rows.shape else rows.T)
    criterion = NTXentLoss(temperature=head.temperature)

    def loss() -> Tensor:
        near_1, near_2 = bank(key_1, update=False), bank(key_2, update=True)
        return criterion(near_1, y_2) + criterion(near_2, y_1)

    return Way(loss)


def ours(batch: Batch, head: SoftNeighborHead) -> Way:
    """(d)."""
    return Way(
        lambda: head.loss_of_views(batch.y, batch.key)["loss"],
        head.queue.commit,
        lambda key: head.queue.search(key, head.num_neighbors)[1],
    )


def fits(n: int, N: int, K: int, Q: int, d: int, gib: float) -> bool:
    """Whether (b)'s peak does: similarities; or gathered rows, logits."""
    size = 4 * max(2 * n * Q, 3 * n * N * (K + 1)) + 12 * N * (K + 1) * d
    return size < gib * 2**30


def compare(size: dict, args: argparse.Namespace) -> dict:
    """One row of the table: all ways that fit."""
    batch = Batch(**size, args=args)
    head = make_head(batch.rows, size["K"], args.projection)
    leaves = [*batch.y, *head.parameters()]
    ways: dict[str, Way] = {}
    # With K = 0 there is nothing to compare: InfoNCE.
    if size["K"] > 0 and fits(**size, gib=args.max_gib):
        ways["authors"] = direct(batch, head, host=True)
        ways["direct"] = direct(batch, head)
    with contextlib.suppress(ImportError):
        ways["lightly"] = lightly(batch, head)
    ways["snclr_mm"] = ours(batch, head)

    def step(way: Way, update=True, autocast=args.autocast, **found) -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        dtype = autocast and getattr(torch, autocast)
        with torch.autocast(args.device, dtype, enabled=dtype is not None):
            loss = way.loss(**found)
        loss.backward()
        if update:
            way.update()
        return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    with simulated_ranks(batch, size["n"], size["N"]):
        agreement = check(ways, batch, step, args.autocast is not None)
        head.queue.discard()  # what the check staged
        steps = {name: partial(step, way) for name, way in ways.items()}
        memory = {name: peak_bytes(step, args.device) for name, step in steps.items()}
        seconds = interleave(steps, args.device, args.rounds)
    rows = {
        name: {**summary(taken, seconds["snclr_mm"]), "peak_mib": memory[name] / 2**20}
        for name, taken in seconds.items()
    }
    return {**size, "agreement": agreement, "ways": rows}


def check(ways: dict, batch: Batch, step: Callable, reduced: bool) -> dict[str, dict]:
    """Compare neighbors, loss and gradients of (a) and (d) with (b)'s.

    Of rows that are equally near, ways may choose differently; so (b) computes its
    loss, in float32, with the neighbors that the other found. Under autocast (a) finds
    others: left out.

    Returns:
        dict[str, dict]: Of each way ``other_neighbors``, how many keys have others than
        in (b); ``gap``, by how much these are less similar; ``error``, the largest
        relative difference of loss and gradients; and whether it ``agrees``.
    """
    agreement = {}
    names = ("snclr_mm",) if reduced else ("authors", "snclr_mm")
    for name in names if "direct" in ways else ():
        found = [ways[name].search(key) for key in batch.key]
        other, gap = 0, 0.0
        for key, index in zip(batch.key, found, strict=True):
            best = ways["direct"].search(key)
            other += (index.sort()[0] != best.sort()[0]).any(1).sum().item()
            rows, key = batch.rows, F.normalize(key, dim=1)
            index, best = (
                torch.einsum("nd,nkd->nk", key, rows[i]).sort()[0]
                for i in (index, best)
            )
            gap = max(gap, (best - index).abs().max().item())
        values = step(ways[name], update=False)
        expected = step(ways["direct"], update=False, autocast=None, found=found)
        pairs = zip(values, expected, strict=True)
        errors = [(a - b).norm() / b.norm().clamp(min=1e-6) for a, b in pairs]
        error = torch.stack(errors).max().item()  # not a number if one is not
        near = gap <= EQUALLY_NEAR[batch.rows.device.type]
        agrees = near and error <= (0.05 if reduced else 1e-3)
        agreement[name] = dict(
            other_neighbors=other, gap=gap, error=error, agrees=agrees
        )
    return agreement


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    record = Record(args)
    failed = []
    for size in sizes(args):
        row = compare(size, args)
        record.add(row)
        times = (f"{name} {way['ms']:.2f} ms" for name, way in row["ways"].items())
        print(*(f"{k}={v}" for k, v in size.items()), *times, sep="  ", flush=True)
        for name, found in row["agreement"].items():
            if not found["agrees"]:
                failed.append(f"{name} differs from (b) at {size}: {found}")
                print(failed[-1], flush=True)
        if args.device == "cuda":
            torch.cuda.empty_cache()
    report.show("loss", record)
    if failed:
        raise SystemExit("\n".join(failed))
    return record


if __name__ == "__main__":
    main()
