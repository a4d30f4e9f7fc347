#!/usr/bin/env python
"""Bytes and time that neighbors add to what ranks exchange in a step.

Real gloo processes run SoftNeighborHead's step on both views (search, loss, backward,
commit); every collective is recorded. Beside it the authors' way: features of all
neighbors, [n, K + 1, d], instead of y_2 [n, d] and indices [n, K]. Where the ranks'
losses do not average to that of one process, the exit status tells. For more ranks than
processes can be started, bytes follow from the same formula, which the measurement
confirms, and time from a bandwidth.
"""

import argparse
import itertools
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import report
import torch
import torch.distributed as dist
import torch.nn.functional as F
from measuring import Record, interleave, make_head, make_parser

from snclr_mm.models import SoftNeighborHead
from snclr_mm.models.ops.gather import ALL_GATHER


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        __doc__.split("\n\n")[0], "benchmark_comm.json",
        n=([64, 256], "images per rank"), K=([10, 30, 100], "neighbors"),
        d=([256], "feature width"), Q=(16384, "queue rows"),
        ranks=([2, 4], "processes"),
        computed_ranks=([8, 64, 1024], "also compute for so many ranks"),
        gbps=(200.0, "bandwidth per rank for computed times, Gbit/s"),
        rounds=(15, "timed exchanges"),
    )  # fmt: skip
    parser.set_defaults(device="cpu")  # gloo's
    return parser.parse_args(argv)


def formula(n: int, K: int, d: int) -> dict[str, int]:
    """Bytes that a rank sends per view, keys in half precision."""
    return {"snclr_mm": n * (2 * d + 4 * K), "authors": n * (K + 1) * d * 2}


def make(ranks: int, n: int, K: int, d: int, Q: int) -> tuple:
    """The same head everywhere; features of all ranks, y and key [2, ranks n, d]."""
    g = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(Q, d, generator=g), dim=1)
    y, key = torch.randn(2, 2, ranks * n, d, generator=g)
    return make_head(rows, K, "identity"), y, key.half()


def step(head: SoftNeighborHead, y: torch.Tensor, key: torch.Tensor) -> float:
    """Search, loss and backward of both views."""
    y = y.clone().requires_grad_()
    loss = head.loss_of_views(y, key)["loss"]
    loss.backward()
    return loss.item()


def exchange(tensors: list[torch.Tensor], ranks: int) -> None:
    for tensor in tensors:
        everything = tensor.new_empty(ranks * len(tensor), *tensor.shape[1:])
        getattr(dist, ALL_GATHER)(everything, tensor)


def work(rank: int, ranks: int, cases: list, Q: int, rounds: int, file: str) -> None:
    """Measure all cases as one of the ranks, and leave the results in a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{file}.store", rank=rank, world_size=ranks
    )
    results = []
    for n, K, d in cases:
        head, y, key = make(ranks, n, K, d, Q)
        share = slice(rank * n, (rank + 1) * n)
        spy = partial(mock.patch.object, dist)
        with (
            spy(ALL_GATHER, wraps=getattr(dist, ALL_GATHER)) as gathered,
            spy("all_reduce", wraps=dist.all_reduce) as reduced,
        ):
            loss = step(head, y[:, share], key[:, share])
            head.queue.commit()
        sent = [call.args[1] for call in gathered.call_args_list]
        neighbors = list(torch.randn(2, n, K + 1, d).half())
        ways = {
            "snclr_mm": partial(exchange, sent, ranks),
            "authors": partial(exchange, neighbors, ranks),
        }
        results.append(
            dict(
                loss=loss,
                sent=sum(tensor.nbytes for tensor in sent),
                other=sum(call.args[0].nbytes for call in reduced.call_args_list),
                collectives=gathered.call_count + reduced.call_count,
                seconds=interleave(ways, "cpu", rounds, before=dist.barrier),
            )
        )
    torch.save(results, f"{file}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


def run_ranks(ranks: int, cases: list, args: argparse.Namespace) -> list:
    """Results of each rank."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "result"))
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.multiprocessing.spawn(
            work, (ranks, cases, args.Q, args.rounds, file), nprocs=ranks
        )
        return [torch.load(f"{file}.{rank}") for rank in range(ranks)]


def compare(ranks: int, args: argparse.Namespace) -> list[dict]:
    """A row per n, K and d, measured on that many processes."""
    cases = list(itertools.product(args.n, args.K, args.d))
    rows = []
    by_rank = run_ranks(ranks, cases, args)
    for (n, K, d), *results in zip(cases, *by_rank, strict=True):
        mean = statistics.mean(result["loss"] for result in results)
        expected = step(*make(ranks, n, K, d, args.Q))
        seconds = [result["seconds"] for result in results]
        slowest = {
            name: map(max, zip(*(taken[name] for taken in seconds), strict=True))
            for name in ("snclr_mm", "authors")
        }
        rows.append(
            dict(
                ranks=ranks, n=n, K=K, d=d, N=n * ranks,
                loss_error=abs(mean / expected - 1),
                bytes_per_view=results[0]["sent"] / 2,
                other_bytes=results[0]["other"],
                collectives=results[0]["collectives"],
                formula=formula(n, K, d),
                ms={name: 1e3 * statistics.median(t) for name, t in slowest.items()},
            )
        )  # fmt: skip
    return rows


def compute(ranks: int, n: int, K: int, d: int, gbps: float) -> dict:
    """What a rank receives in a step of two views, and how long that takes."""
    received = {name: 2 * (ranks - 1) * sent for name, sent in formula(n, K, d).items()}
    return dict(
        ranks=ranks, n=n, K=K, d=d, N=n * ranks,
        received_mb={name: size / 1e6 for name, size in received.items()},
        ms={name: size * 8 / (gbps * 1e6) for name, size in received.items()},
    )  # fmt: skip


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    record = Record(args)
    sizes = itertools.product(args.computed_ranks, args.n[-1:], args.K, args.d)
    record["computed"] = [compute(*size, args.gbps) for size in sizes]
    for ranks in args.ranks:
        for row in compare(ranks, args):
            record.add(row)
    report.show("comm", record)
    wrong = [row for row in record["results"] if not row["loss_error"] <= 1e-4]
    if wrong:
        raise SystemExit(f"The ranks' mean loss is not that of one process: {wrong}")
    return record


if __name__ == "__main__":
    main()
