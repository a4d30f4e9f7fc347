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
update. (a), (b) and (d) must agree in loss and gradients. Prints tables, writes JSON.
"""

import argparse
import contextlib
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import torch
import torch.nn.functional as F
from measuring import interleave, machine, peak_bytes, summary, write
from torch import Tensor

from snclr_mm.models import SoftNeighborHead
from snclr_mm.models.soft_neighbor_loss import Gathered

TARGET = dict(n=256, N=256, K=30, Q=65536, d=256)
GPU_TARGET = dict(n=256, N=4096, K=30, Q=128000, d=256)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, meaning in (
        ("n", "images of this rank"), ("N", "images of all ranks"), ("K", "neighbors"),
        ("Q", "queue rows"), ("d", "feature width"),
    ):  # fmt: skip
        parser.add_argument(f"-{name}", type=int, nargs="+", help=meaning)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--features", choices=["random", "clusters"], default="random",
        help="random directions share the fewest neighbors; clusters: 100 of them",
    )  # fmt: skip
    parser.add_argument(
        "--projection", choices=["identity", "linear"], default="linear"
    )
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument(
        "--autocast", choices=["float16", "bfloat16"],
        help="run the steps under autocast; (d) then reduces its precision as well",
    )  # fmt: skip
    parser.add_argument(
        "--variants", action="store_true", help="also time the settings of (d) apart"
    )
    parser.add_argument(
        "--max-gib", type=float, default=4, help="leave out what needs more than this"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark_loss.json"))
    args = parser.parse_args(argv)
    args.sizes = list(sizes(args))
    return args


def sizes(args: argparse.Namespace):
    """The given sizes, each combination; or the targets and one size at a time."""
    base = GPU_TARGET if args.device.startswith("cuda") else TARGET
    given = {k: getattr(args, k) for k in TARGET if getattr(args, k)}
    if given:
        combinations = [{}]
        for name, values in given.items():
            combinations = [{**c, name: v} for c in combinations for v in values]
        for c in combinations:
            yield {**base, "N": c.get("n", base["N"]), **c}
        return
    yield base
    for name, values in (
        ("Q", (2**14, 2**16, 2**18, 2**20)),
        ("K", (0, 1, 10, 30, 100, 128)),
        ("N", (2**8, 2**10, 2**12, 2**14, 2**16)),
        ("d", (128, 512)),
    ):
        yield from ({**base, name: v} for v in values if v != base[name])


class Batch:
    """Features of one step: y_1, y_2 and keys of both views; all ranks' share."""

    def __init__(self, n, N, K, Q, d, args) -> None:
        self.generator = torch.Generator(args.device).manual_seed(0)
        self.clusters = None
        if args.features == "clusters":
            self.clusters = F.normalize(self._normal(100, d, device=args.device), dim=1)
        draw = partial(self._draw, d=d, device=args.device)
        self.rows = F.normalize(draw(Q), dim=1)
        self.y = [draw(n).requires_grad_() for _ in range(2)]
        self.key = [draw(n) for _ in range(2)]
        self.other_key = [draw(N - n) for _ in range(2)]
        # What the other ranks found: rows near their keys would be as many.
        self.other_index = [self._search(key, K, Q).int() for key in self.other_key]

    def _normal(self, *shape, device) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=device)

    def _draw(self, count: int, d: int, device: str) -> Tensor:
        values = self._normal(count, d, device=device)
        if self.clusters is None:
            return values
        label = torch.randint(100, (count,), generator=self.generator, device=device)
        return self.clusters[label] + values / d**0.5

    def _search(self, keys: Tensor, K: int, Q: int) -> Tensor:
        # Searching for 65536 keys would take longer than all timings: for the first
        # few, and the others take theirs, shifted.
        found = [
            (F.normalize(part, dim=1) @ self.rows.T).topk(K, dim=1).indices
            for part in keys[:2048].split(256)
        ] or [torch.empty(0, K, dtype=torch.long, device=keys.device)]
        found = torch.cat(found)
        times = -(-len(keys) // max(1, len(found)))
        shifts = torch.arange(times, device=keys.device).repeat_interleave(len(found))
        return (
            found.repeat(times, 1)[: len(keys)] + 977 * shifts[: len(keys), None]
        ) % Q


def objective(
    z: Tensor, y: Tensor, neighbors: Tensor, everything: Tensor, temperature: float,
    f_1: Tensor | None, f_2: Tensor | None,
) -> Tensor:  # fmt: skip
    """log_of_sum as the paper writes it; ``everything`` [N(K + 1), d] is D's."""
    z = F.normalize(z, dim=1)
    q, k = z, neighbors
    if f_1 is not None:
        q, k = q @ f_1.T, k @ f_2.T
    weight = torch.einsum("nd,nkd->nk", q, k).softmax(1)
    weight = F.pad(weight, (1, 0), value=1.0)
    own = torch.cat([F.normalize(y, dim=1)[:, None], neighbors], dim=1)
    own = torch.einsum("nd,nkd->nk", z, own) / temperature
    log_d = (z @ everything.T / temperature).logsumexp(1)
    return (log_d - (own + weight.log()).logsumexp(1)).mean()


class Direct:
    """(b), and with ``host`` (a)."""

    def __init__(self, batch: Batch, head: SoftNeighborHead, host: bool, args) -> None:
        self.batch, self.host, self.args = batch, host, args
        self.K = head.num_neighbors
        linear = isinstance(head.attention.f_1, torch.nn.Linear)
        self.f = [head.attention.f_1, head.attention.f_2] if linear else None
        self.pointer = 0
        if host:
            # Not normalised, as the authors keep it; the directions are the same.
            self.queue = 3 * batch.rows.cpu()
        else:
            self.queue = batch.rows.clone()
        # What the other ranks send: their neighbors themselves.
        self.others = [
            torch.cat([F.normalize(key, dim=1)[:, None], batch.rows[index]], 1)
            for key, index in zip(batch.other_key, batch.other_index, strict=True)
        ]

    @staticmethod
    def estimate(n, N, K, Q, d) -> int:
        """Rough peak bytes of one view: similarities; gathered rows, logits."""
        return 4 * max(2 * n * Q, 3 * n * N * (K + 1)) + 12 * N * (K + 1) * d

    def loss(self) -> Tensor:
        batch, losses = self.batch, []
        for view, y in enumerate(batch.y):
            key = batch.key[1 - view]
            queue = self.queue
            if self.host:
                queue = F.normalize(queue.to(self.args.device, copy=True), dim=1)
            with torch.no_grad():
                found = (F.normalize(key, dim=1) @ queue.T).topk(self.K, dim=1)
                neighbors = queue[found.indices]
                own = torch.cat([F.normalize(key, dim=1)[:, None], neighbors], 1)
                everything = torch.cat([own, self.others[1 - view]]).flatten(0, 1)
            f = [layer.weight for layer in self.f] if self.f else (None, None)
            losses.append(
                objective(y, key, neighbors, everything, self.args.temperature, *f)
            )
        return sum(losses)

    @torch.no_grad()
    def update(self) -> None:
        views = self.batch.key[:1] if self.host else self.batch.key
        for view, key in enumerate(views):
            if not self.host:
                key = F.normalize(torch.cat([key, self.batch.other_key[view]]), dim=1)
            key = key.to(self.queue.device)[-len(self.queue) :]
            rows = (torch.arange(len(key)) + self.pointer) % len(self.queue)
            self.queue[rows.to(self.queue.device)] = key
            self.pointer += len(key)


class Lightly:
    """(c)."""

    def __init__(self, batch: Batch, Q: int, d: int, args) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import NNMemoryBankModule

        self.batch = batch
        self.bank = NNMemoryBankModule(size=(Q, d)).to(args.device)
        self.bank(batch.key[0], update=True)  # builds the bank
        rows = batch.rows
        rows = rows if self.bank.bank.shape == rows.shape else rows.T
        self.bank.bank.copy_(rows)
        self.criterion = NTXentLoss(temperature=args.temperature)

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

    def loss(self) -> Tensor:
        batch, head = self.batch, self.head
        found = head.search(*batch.key)
        losses = []
        for view in (0, 1):
            other = 1 - view
            near = found[other]
            gathered = Gathered(
                torch.cat([near.gathered.key, batch.other_key[other]]),
                torch.cat([near.gathered.index, batch.other_index[other]]),
            )
            near = near._replace(gathered=gathered)
            losses.append(head.loss(batch.y[view], batch.key[other], near))
        return sum(losses)

    def update(self) -> None:
        self.head.queue.commit()


def make_head(batch: Batch, K: int, args, queue=None, **options) -> SoftNeighborHead:
    torch.manual_seed(0)
    length, dim = batch.rows.shape
    head = SoftNeighborHead(
        predictor=None,
        queue=dict(type="NeighborQueue", length=length, dim=dim, **(queue or {})),
        attention=dict(projection=args.projection),
        num_neighbors=K,
        temperature=args.temperature,
        **options,
    ).to(args.device)
    head.queue.managed = True
    head.queue.enqueue(batch.rows)
    return head


def make_variants(batch: Batch, K: int, args) -> dict[str, Ours]:
    """(d) with one setting changed."""
    half = "bfloat16" if args.device == "cpu" else "float16"
    fast = "streaming" if args.device == "cpu" else "blocks"
    variants = {
        "search: plain": dict(queue=dict(search_backend="plain")),
        "search: fp32": dict(
            queue=dict(search_backend=fast, search_precision="float32")
        ),
        "search: half": dict(queue=dict(search_backend=fast, search_precision=half)),
        "loss: plain": dict(backend="plain"),
        "loss: fp32": dict(backend="streaming", precision="float32"),
        "loss: half": dict(backend="streaming", precision=half),
    }
    return {
        name: Ours(batch, make_head(batch, K, args, **options))
        for name, options in variants.items()
    }


def compare(size: dict, args: argparse.Namespace) -> dict:
    """One row of the table: all ways that fit."""
    batch = Batch(**size, args=args)
    head = make_head(batch, size["K"], args)
    ways = {}
    if Direct.estimate(**size) < args.max_gib * 2**30:
        ways["authors"] = Direct(batch, head, True, args)
        ways["direct"] = Direct(batch, head, False, args)
    if size["K"] == 0:
        ways = {}  # InfoNCE: nothing to compare
    with contextlib.suppress(ImportError):
        ways["lightly"] = Lightly(batch, size["Q"], size["d"], args)
    ways["snclr_mm"] = Ours(batch, head)
    if args.variants and size["K"] > 0:
        ways |= make_variants(batch, size["K"], args)

    def step(way, update: bool = True, autocast: str | None = args.autocast):
        parameters = way.head.parameters() if isinstance(way, Ours) else ()
        for leaf in [*batch.y, *head.parameters(), *parameters]:
            leaf.grad = None
        device, dtype = args.device.split(":")[0], autocast and getattr(torch, autocast)
        with torch.autocast(device, dtype, enabled=autocast is not None):
            loss = way.loss()
        loss.backward()
        if update:
            way.update()
        return loss.detach()

    error = check(ways, step, head, batch, reduced=args.autocast is not None)
    memory = {
        name: peak_bytes(partial(step, way), args.device) for name, way in ways.items()
    }
    seconds = interleave(
        {name: partial(step, way) for name, way in ways.items()},
        args.device,
        args.rounds,
    )
    rows = {
        name: {**summary(times, seconds["snclr_mm"]), "peak_mib": memory[name] / 2**20}
        for name, times in seconds.items()
    }
    return {**size, "largest_error": error, "ways": rows}


def check(ways, step, head, batch, reduced: bool) -> dict | None:
    """Loss and gradients of each way against (b)'s, before anything is timed.

    (b) is computed in float32. Under autocast (a) finds other neighbors: left out.

    Raises:
        SystemExit: If they differ by more than rounding.
    """
    if "direct" not in ways:
        return None
    values = {}
    for name, way in ways.items():
        if name == "lightly" or (reduced and name == "authors"):
            continue
        options = {"autocast": None} if name == "direct" else {}
        loss = step(way, update=False, **options)
        own = way.head if isinstance(way, Ours) else head
        own.queue.discard()
        gradients = [*(y.grad for y in batch.y), *(p.grad for p in own.parameters())]
        values[name] = [loss, *(g.clone() for g in gradients if g is not None)]
    direct = values.pop("direct")
    if any(value.isnan().any() for mine in values.values() for value in mine):
        raise SystemExit("A loss or gradient is not a number.")
    errors = {
        name: max(
            float((a - b).norm() / b.norm().clamp(min=1e-6))
            for a, b in zip(mine, direct, strict=True)
        )
        for name, mine in values.items()
    }
    for name, error in errors.items():
        if not error <= (0.05 if reduced or name == "loss: half" else 1e-3):
            raise SystemExit(f"{name}: loss or gradients differ from (b)'s by {error}")
    return errors


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    record = {
        **machine(args.device),
        "features": args.features,
        "projection": args.projection,
        "autocast": args.autocast,
        "results": [],
    }
    print(
        f"{args.features} features, {record.get('gpu', record['cpu'])}, "
        f"{record['threads']} threads\n"
        f"{'n':>5}{'N':>7}{'K':>5}{'Q':>9}{'d':>5}  {'':13}{'ms':>10}{'quartiles':>20}"
        f"{'/ ours':>8}{'peak MiB':>10}"
    )
    for size in args.sizes:
        row = compare(size, args)
        record["results"].append(row)
        write(args.out, record)
        text = "".join(
            f"{size[k]:{w}}" for k, w in zip("nNKQd", (5, 7, 5, 9, 5), strict=True)
        )
        for name, way in row["ways"].items():
            low, high = way["quartiles_ms"]
            print(
                f"{text:31}  {name:13}{way['ms']:10.2f}{low:10.2f} -{high:8.2f}"
                f"{way['ratio']:8.2f}{way['peak_mib']:10.1f}",
                flush=True,
            )
            text = ""
        if args.device.startswith("cuda"):
            torch.cuda.empty_cache()
    print(f"\n{args.out}")
    return record


if __name__ == "__main__":
    main()
