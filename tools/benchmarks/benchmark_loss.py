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
from functools import partial
from unittest import mock

import report
import torch
import torch.distributed as dist
import torch.nn.functional as F
from measuring import Record, interleave, make_head, make_parser, peak_bytes, summary
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from snclr_mm.models import SoftNeighborHead

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
    parser = make_parser(__doc__.split("\n\n")[0], "benchmark_loss.json")
    for name, meaning in (
        ("n", "images of this rank"), ("N", "images of all ranks"), ("K", "neighbors"),
        ("Q", "queue rows"), ("d", "feature width"),
    ):  # fmt: skip
        parser.add_argument(f"-{name}", type=int, nargs="+", help=meaning)
    parser.add_argument("--rounds", type=int, default=9)
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
    parser.add_argument(
        "--max-gib", type=float, default=4, help="leave out what needs more than this"
    )
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

    ``all_gather`` hands out the batch's other keys or, for integers, other indices.
    """

    def all_gather(outputs: list[Tensor], tensor: Tensor, group=None) -> None:
        other = batch.other_key if tensor.is_floating_point() else batch.other_index
        outputs[0].copy_(tensor)
        for output, part in zip(outputs[1:], other.split(n), strict=True):
            output.view(-1, *part.shape).copy_(part)  # the same in each view

    backend = "nccl" if batch.rows.is_cuda else "gloo"
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=N // n)
    with (
        mock.patch.object(dist, "all_gather", all_gather),
        # MMEngine asks it on which device tensors travel.
        mock.patch.object(dist, "get_backend", lambda group=None: backend),
    ):
        try:
            yield
        finally:
            dist.destroy_process_group()


class Direct:
    """(b), and with ``host`` (a)."""

    def __init__(self, batch: Batch, head: SoftNeighborHead, host: bool) -> None:
        self.batch, self.head, self.host = batch, head, host
        self.pointer = 0
        # Not normalised, as the authors keep it; the directions are the same.
        self.queue = 3 * batch.rows.cpu() if host else batch.rows.clone()
        # What the other ranks send: their neighbors themselves.
        keys = F.normalize(batch.other_key, dim=1)[:, None]
        self.others = torch.cat([keys, batch.rows[batch.other_index]], 1)

    @staticmethod
    def estimate(n, N, K, Q, d) -> int:
        """Rough peak bytes of one view: similarities; gathered rows, logits."""
        return 4 * max(2 * n * Q, 3 * n * N * (K + 1)) + 12 * N * (K + 1) * d

    def unit_rows(self) -> Tensor:
        if not self.host:
            return self.queue
        return F.normalize(self.queue.to(self.batch.rows.device, copy=True), dim=1)

    def search(self, key: Tensor) -> Tensor:
        return nearest(key, self.unit_rows(), self.head.num_neighbors)

    def loss(self, found: list[Tensor] | None = None) -> Tensor:
        """Loss of both views; ``found`` takes the place of each key's search."""
        loss = 0
        for y, view in zip(self.batch.y, (1, 0), strict=True):
            key, rows = self.batch.key[view], self.unit_rows()
            if found is None:
                index = nearest(key, rows, self.head.num_neighbors)
            else:
                index = found[view]
            loss = loss + self.objective(y, F.normalize(key, dim=1), rows[index])
        return loss

    def objective(self, z: Tensor, key: Tensor, neighbors: Tensor) -> Tensor:
        """log_of_sum as the paper writes it, one [n, N(K + 1)] matrix for D."""
        z = F.normalize(z, dim=1)
        q, k, attention = z, neighbors, self.head.attention
        if isinstance(attention.f_1, torch.nn.Linear):
            q, k = q @ attention.f_1.weight.T, k @ attention.f_2.weight.T
        weight = torch.einsum("nd,nkd->nk", q, k).softmax(1)
        weight = F.pad(weight, (1, 0), value=1.0)
        own = torch.cat([key[:, None], neighbors], dim=1)
        everything = torch.cat([own, self.others]).flatten(0, 1)
        own = torch.einsum("nd,nkd->nk", z, own) / self.head.temperature
        log_d = (z @ everything.T / self.head.temperature).logsumexp(1)
        return (log_d - (own + weight.log()).logsumexp(1)).mean()

    def update(self) -> None:
        for key in self.batch.key[:1] if self.host else self.batch.key:
            if not self.host:
                key = F.normalize(torch.cat([key, self.batch.other_key]), dim=1)
            key = key.to(self.queue.device)[-len(self.queue) :]
            rows = torch.arange(len(key), device=key.device) + self.pointer
            self.queue[rows % len(self.queue)] = key
            self.pointer += len(key)


class Lightly:
    """(c)."""

    def __init__(self, batch: Batch, temperature: float) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import NNMemoryBankModule

        self.batch, rows = batch, batch.rows
        self.bank = NNMemoryBankModule(size=tuple(rows.shape)).to(rows.device)
        self.bank(batch.key[0], update=True)  # builds the bank
        self.bank.bank.copy_(rows if self.bank.bank.shape == rows.shape else rows.T)
        self.criterion = NTXentLoss(temperature=temperature)

    def loss(self) -> Tensor:
        (y_1, y_2), (key_1, key_2) = self.batch.y, self.batch.key
        near_1 = self.bank(key_1, update=False)
        near_2 = self.bank(key_2, update=True)
        return self.criterion(near_1, y_2) + self.criterion(near_2, y_1)

    def update(self) -> None:
        pass  # part of the second look-up


class Ours:
    """(d)."""

    def __init__(self, batch: Batch, head: SoftNeighborHead) -> None:
        self.batch, self.head = batch, head

    def search(self, key: Tensor) -> Tensor:
        return self.head.queue.search(key, self.head.num_neighbors)[1]

    def loss(self) -> Tensor:
        (y_1, y_2), (key_1, key_2) = self.batch.y, self.batch.key
        return self.head.loss(y_1, key_2) + self.head.loss(y_2, key_1)

    def update(self) -> None:
        self.head.queue.commit()


def compare(size: dict, args: argparse.Namespace) -> dict:
    """One row of the table: all ways that fit."""
    batch = Batch(**size, args=args)
    head = make_head(batch.rows, size["K"], args.projection)
    leaves = [*batch.y, *head.parameters()]
    ways = {}
    # With K = 0 there is nothing to compare: InfoNCE.
    if size["K"] > 0 and Direct.estimate(**size) < args.max_gib * 2**30:
        ways["authors"] = Direct(batch, head, host=True)
        ways["direct"] = Direct(batch, head, host=False)
    with contextlib.suppress(ImportError):
        ways["lightly"] = Lightly(batch, head.temperature)
    ways["snclr_mm"] = Ours(batch, head)

    def step(way, update: bool = True, autocast: str | None = args.autocast, **found):
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
        agreement = check(ways, step, args.autocast is not None)
        head.queue.discard()  # what the check staged
        steps = {name: partial(step, way) for name, way in ways.items()}
        memory = {name: peak_bytes(step, args.device) for name, step in steps.items()}
        seconds = interleave(steps, args.device, args.rounds)
    rows = {
        name: {**summary(taken, seconds["snclr_mm"]), "peak_mib": memory[name] / 2**20}
        for name, taken in seconds.items()
    }
    return {**size, "agreement": agreement, "ways": rows}


def check(ways: dict, step, reduced: bool) -> dict[str, dict]:
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
    if "direct" not in ways:
        return agreement
    direct = ways["direct"]
    rows, batch = direct.unit_rows(), direct.batch
    for name in ("snclr_mm",) if reduced else ("authors", "snclr_mm"):
        found = [ways[name].search(key) for key in batch.key]
        other, gap = 0, 0.0
        for key, index in zip(batch.key, found, strict=True):
            best = direct.search(key)
            other += (index.sort().values != best.sort().values).any(1).sum().item()
            index, best = (
                torch.einsum("nd,nkd->nk", F.normalize(key, dim=1), rows[i]).sort()[0]
                for i in (index, best)
            )
            gap = max(gap, (best - index).abs().max().item())
        values = step(ways[name], update=False)
        expected = step(direct, update=False, autocast=None, found=found)
        errors = [
            (a - b).norm() / b.norm().clamp(min=1e-6)
            for a, b in zip(values, expected, strict=True)
        ]
        error = torch.stack(errors).max().item()  # not a number if one is not
        agrees = error <= (0.05 if reduced else 1e-3)
        agrees = agrees and gap <= EQUALLY_NEAR[rows.device.type]
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
    print("", *report.loss_lines(record), args.out, sep="\n")
    if failed:
        raise SystemExit("\n".join(failed))
    return record


if __name__ == "__main__":
    main()
