#!/usr/bin/env python
"""Bytes and time that neighbors add to what ranks exchange in a step.

Real gloo processes run SoftNeighborHead's step on both views (search, loss, backward,
commit); every collective is recorded. Beside it the authors' way: features of all
neighbors, [n, K + 1, d], instead of y_2 [n, d] and indices [n, K]. Losses of all ranks
must average to that of one process with all images. For more ranks than processes can
be started, bytes follow from the same formula, which the measurement confirms, and time
from a bandwidth. Prints tables, writes JSON.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import torch
import torch.distributed as dist
import torch.nn.functional as F
from measuring import machine, write
from mmengine.dist import all_gather

from snclr_mm.models import SoftNeighborHead
from snclr_mm.models.soft_neighbor_loss import gather


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, default, meaning in (
        ("-n", [64, 256], "images per rank"), ("-K", [10, 30, 100], "neighbors"),
        ("-d", [256], "feature width"), ("--ranks", [2, 4], "processes"),
    ):  # fmt: skip
        parser.add_argument(name, type=int, nargs="+", default=default, help=meaning)
    parser.add_argument("-Q", type=int, default=16384, help="queue rows")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--computed-ranks", type=int, nargs="*", default=[8, 64, 1024],
        help="also compute for so many ranks",
    )  # fmt: skip
    parser.add_argument(
        "--gbps", type=float, default=200,
        help="bandwidth per rank for computed times, Gbit/s",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("benchmark_comm.json"))
    return parser.parse_args(argv)


def formula(n: int, K: int, d: int) -> dict[str, int]:
    """Bytes that a rank sends per view, keys in half precision."""
    return {"snclr_mm": n * (2 * d + 4 * K), "authors": n * (K + 1) * d * 2}


@contextmanager
def recorded(sent: list):
    """Note the bytes of each tensor that enters a collective."""
    originals = {name: getattr(dist, name) for name in ("all_gather", "all_reduce")}

    def wrap(name, original):
        def collective(*args, **kwargs):
            tensor = args[1] if name == "all_gather" else args[0]
            sent.append((name, tensor.numel() * tensor.element_size()))
            return original(*args, **kwargs)

        return collective

    for name, original in originals.items():
        setattr(dist, name, wrap(name, original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def make(ranks: int, n: int, K: int, d: int, Q: int) -> tuple:
    """The same head everywhere; features of all ranks, y and key [2, ranks n, d]."""
    g = torch.Generator().manual_seed(0)
    head = SoftNeighborHead(
        None,
        dict(type="NeighborQueue", length=Q, dim=d),
        dict(projection="identity"),
        num_neighbors=K,
        temperature=0.2,
    )
    head.queue.managed = True
    head.queue.features.copy_(F.normalize(torch.randn(Q, d, generator=g), dim=1))
    head.queue.count.fill_(Q)
    head.queue.load_state_dict(head.queue.state_dict())
    y, key = torch.randn(2, 2, ranks * n, d, generator=g)
    return head, y, key.half()


def step(head: SoftNeighborHead, y: torch.Tensor, key: torch.Tensor) -> float:
    """Search, loss and backward of both views."""
    y = y.clone().requires_grad_()
    found = head.search(*key)
    loss = head.loss(y[0], key[1], found[1]) + head.loss(y[1], key[0], found[0])
    loss.backward()
    return loss.item()


def authors(neighbors: torch.Tensor) -> None:
    """Gather the features of own keys and neighbors, [n, K + 1, d] per view."""
    for view in neighbors:
        all_gather(view)


def work(rank: int, ranks: int, cases: list, Q: int, rounds: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{file}.store", rank=rank, world_size=ranks
    )
    results = []
    for n, K, d in cases:
        head, y, key = make(ranks, n, K, d, Q)
        share = slice(rank * n, (rank + 1) * n)
        y, key = y[:, share], key[:, share]
        sent = []
        with recorded(sent):
            loss = step(head, y, key)
            head.queue.commit()
        neighbors = torch.randn(2, n, K + 1, d).half()
        index = torch.randint(Q, (2 * n, K))
        ways = {
            "snclr_mm": lambda key=key, index=index: gather(key.flatten(0, 1), index),
            "authors": lambda neighbors=neighbors: authors(neighbors),
        }
        seconds = {name: [] for name in ways}
        for i in range(rounds + 2):
            for name, way in ways.items():
                dist.barrier()
                start = time.perf_counter()
                way()
                if i >= 2:
                    seconds[name].append(time.perf_counter() - start)
        results.append(dict(loss=loss, sent=sent, seconds=seconds))
    torch.save(results, f"{file}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


def run_ranks(ranks: int, cases: list, args: argparse.Namespace) -> list:
    """Results of each rank."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "result"))
        context = torch.multiprocessing.get_context("spawn")
        os.environ["OMP_NUM_THREADS"] = "1"
        processes = [
            context.Process(
                target=work, args=(rank, ranks, cases, args.Q, args.rounds, file)
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit("A rank failed, see above.")
        return [torch.load(f"{file}.{rank}") for rank in range(ranks)]


def compare(ranks: int, args: argparse.Namespace) -> list[dict]:
    """A row per n, K and d, measured on that many processes."""
    cases = list(itertools.product(args.n, args.K, args.d))
    rows = []
    by_rank = run_ranks(ranks, cases, args)
    for (n, K, d), *results in zip(cases, *by_rank, strict=True):
        losses = [result["loss"] for result in results]
        expected = step(*make(ranks, n, K, d, args.Q))
        if abs(statistics.mean(losses) - expected) > 1e-4 * abs(expected):
            raise SystemExit(
                f"The ranks' mean loss is {statistics.mean(losses)}, that of one "
                f"process {expected}."
            )
        sent = results[0]["sent"]
        features = sum(size for name, size in sent if name == "all_gather")
        rows.append(
            dict(
                ranks=ranks, n=n, K=K, d=d, N=n * ranks,
                bytes_per_view=features / 2,
                other_bytes=sum(size for name, size in sent if name == "all_reduce"),
                collectives=len(sent),
                formula=formula(n, K, d),
                ms={
                    name: 1e3 * statistics.median(
                        max(times) for times in zip(
                            *(r["seconds"][name] for r in results), strict=True
                        )
                    )
                    for name in ("snclr_mm", "authors")
                },
            )
        )  # fmt: skip
    return rows


def compute(ranks: int, n: int, K: int, d: int, gbps: float) -> dict:
    """What a rank receives in a step of two views, and how long that takes."""
    received = {name: 2 * (ranks - 1) * sent for name, sent in formula(n, K, d).items()}
    return dict(
        ranks=ranks, n=n, K=K, d=d, N=n * ranks, received_mb={
            name: size / 1e6 for name, size in received.items()
        },
        ms={name: size * 8 / (gbps * 1e6) for name, size in received.items()},
    )  # fmt: skip


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    print(
        f"{'ranks':>5}{'n':>6}{'K':>5}{'d':>5}{'bytes/view':>12}{'n(2d+4K)':>12}"
        f"{'ratio':>7}{'authors':>12}{'ratio':>7}{'ms':>9}{'authors':>9}"
    )
    measured = []
    for ranks in args.ranks:
        for row in compare(ranks, args):
            measured.append(row)
            mine, theirs = row["formula"]["snclr_mm"], row["formula"]["authors"]
            print(
                f"{ranks:5}{row['n']:6}{row['K']:5}{row['d']:5}"
                f"{row['bytes_per_view']:12.0f}{mine:12}"
                f"{row['bytes_per_view'] / mine:7.3f}{theirs:12}"
                f"{theirs / row['bytes_per_view']:7.1f}"
                f"{row['ms']['snclr_mm']:9.2f}{row['ms']['authors']:9.2f}"
            )
    print(
        f"\nComputed for {args.gbps:g} Gbit/s per rank, both views:\n"
        f"{'ranks':>5}{'n':>6}{'K':>5}{'d':>5}{'MB received':>13}{'authors':>10}"
        f"{'ms':>9}{'authors':>9}"
    )
    computed = []
    for ranks in args.computed_ranks:
        for n, K, d in itertools.product(args.n[-1:], args.K, args.d):
            row = compute(ranks, n, K, d, args.gbps)
            computed.append(row)
            mb, ms = row["received_mb"], row["ms"]
            print(
                f"{ranks:5}{n:6}{K:5}{d:5}{mb['snclr_mm']:13.1f}{mb['authors']:10.1f}"
                f"{ms['snclr_mm']:9.2f}{ms['authors']:9.2f}"
            )
    record = {**machine("cpu"), "measured": measured, "computed": computed}
    write(args.out, record)
    print(f"\n{args.out}")
    return record


if __name__ == "__main__":
    main()
