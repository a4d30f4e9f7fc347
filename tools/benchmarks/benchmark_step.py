#!/usr/bin/env python
"""Time a whole training step: SNCLR over K, and its options, against stock MoCoV3.

A step is forward, backward, optimizer, momentum update and queue. The backbone,
projectors, batch, precision and optimizer are MMPretrain's for all rows, up to those
that say otherwise. All models take turns in one process, on the same drawn images, with
full queues of drawn features: neighbors hardly repeat, the dearest case. Prints a table
of medians (and quartiles, and ratios to MoCoV3 of the same turn) and writes JSON; fails
if SNCLR without neighbors is not MoCoV3: losses and momentum encoders.
"""

import argparse
import sys
import time
from copy import deepcopy
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import snclr_mm  # noqa: F401, I001  (first: it makes mmpretrain importable)
import torch
from measuring import default_device, machine, summary, write
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from rich.progress import track
from torch import nn

CONFIGS = Path(__file__).parents[2] / "configs/imagenet"
WARM_UP = 3
CHECKED = 3  # first steps, in which SNCLR without neighbors must be MoCoV3
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 3e-2}
DEFAULTS = {
    "cuda": dict(
        backbone="resnet50",
        batch=256,
        image_size=224,
        precision="fp16",
        queue_length=65536,
        iterations=15,
    ),
    "cpu": dict(
        backbone="resnet18",
        batch=32,
        image_size=64,
        precision="fp32",
        queue_length=16384,
        iterations=15,
    ),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Defaults, by device: "
        + "; ".join(f"{name}: {values}" for name, values in DEFAULTS.items()),
    )
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--backbone", choices=["resnet18", "resnet50", "vit-small"])
    parser.add_argument("--batch", type=int, help="images, of which two views each")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--precision", choices=list(TOLERANCE))
    parser.add_argument(
        "--neighbors", type=int, nargs="+", default=[0, 10, 30, 100], metavar="K"
    )
    parser.add_argument("--queue-length", type=int)
    parser.add_argument("--iterations", type=int, help="timed steps of each model")
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="a row with model.channels_last (default: for ResNets)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="a row with model.compile"
    )
    parser.add_argument("--out", type=Path, default="benchmark_step.json")
    args = parser.parse_args(argv)
    args.device = args.device or default_device()
    for name, value in DEFAULTS[args.device].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.channels_last is None:
        args.channels_last = args.backbone != "vit-small"
    if args.device == "cpu" and args.precision == "fp16":
        parser.error("--precision fp16 needs --device cuda: use fp32 or bf16")
    if min(args.batch, args.iterations) < 2:
        parser.error("--batch and --iterations must be at least 2")
    if not 0 <= max(args.neighbors) <= args.queue_length:
        parser.error(
            f"--neighbors must be between 0 and --queue-length {args.queue_length}"
        )
    return args


class Step:
    """A model and its optimizer, and what was measured of them."""

    def __init__(
        self, name: str, model: dict, optimizer: dict, args: argparse.Namespace
    ) -> None:
        self.name = name
        torch.manual_seed(0)
        self.model = MODELS.build(model)
        torch.manual_seed(0)
        self.model.init_weights()
        self.model.to(args.device).train()
        self.queue = getattr(self.model.head, "queue", None)
        if self.queue is not None:
            generator = torch.Generator().manual_seed(1)
            rows = torch.randn(self.queue.length, self.queue.dim, generator=generator)
            self.queue.enqueue(rows.to(args.device))
        self.wrapper = build_wrapper(self.model, optimizer, args)
        self.cuda = args.device == "cuda"
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.peak = 0

    def run(self, views: list[torch.Tensor]) -> None:
        """Take one step, and note time, loss and, on a GPU, memory."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            torch.cuda.synchronize()
        start = time.perf_counter()
        with self.wrapper.optim_context(self.model):
            loss = self.model.loss(views, None)["loss"]
        self.wrapper.update_params(loss)
        if self.queue is not None:
            self.queue.commit(bool(loss.isfinite()))  # as NeighborQueueHook
        if self.cuda:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)
        if self.cuda:
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before)
        self.losses.append(loss.item())

    def memory(self) -> int | None:
        """Bytes on the GPU: what stays, and the most that a step adds."""
        if not self.cuda:
            return None
        state = self.wrapper.optimizer.state.values()
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [v for s in state for v in s.values() if torch.is_tensor(v)]
        return sum(t.numel() * t.element_size() for t in tensors) + self.peak


def build_wrapper(
    model: nn.Module, optimizer: dict, args: argparse.Namespace
) -> OptimWrapper:
    cfg = deepcopy(optimizer)
    if args.precision == "fp32":
        cfg.update(type="OptimWrapper")
        cfg.pop("loss_scale", None)
    elif args.device == "cpu":
        cfg.update(type="CPUAmpOptimWrapper")
        cfg.pop("loss_scale", None)
    elif args.precision == "bf16":
        cfg.update(dtype="bfloat16", loss_scale=1.0)
    return build_optim_wrapper(model, cfg)


def make_configs(args: argparse.Namespace) -> tuple[dict, dict, dict]:
    """The recipes' model, MMPretrain's optimizer and ours.

    The learning rate is the warm-up's first.
    """
    vit = args.backbone == "vit-small"
    name = "vit-small-p16_8xb512-300e" if vit else "r50_8xb256-100e"
    recipe = Config.fromfile(CONFIGS / f"snclr_{name}_in1k.py")
    model = recipe.model
    if vit:
        model.backbone.img_size = args.image_size
    else:
        # SyncBN is for several GPUs; MMEngine reverts it on one.
        model.backbone.norm_cfg = dict(type="BN")
        if args.backbone == "resnet18":
            model.backbone.depth = 18
            model.neck.in_channels = 512
    for part in (model.neck, model.head.predictor):
        part.norm_cfg = dict(type="BN1d")
    model.head.queue.length = args.queue_length
    ours = recipe.optim_wrapper.to_dict()
    ours["optimizer"]["lr"] *= recipe.param_scheduler[0].start_factor
    stock = deepcopy(ours)
    if vit:
        del stock["optimizer"]["fused"]
    else:
        stock["optimizer"]["type"] = "LARS"
    return model.to_dict(), stock, ours


def build_steps(args: argparse.Namespace) -> list[Step]:
    model, stock, ours = make_configs(args)
    head = model["head"]
    mocov3_head = dict(
        type="MoCoV3Head",
        predictor=head["predictor"],
        loss=dict(type="CrossEntropyLoss", loss_weight=head["loss_weight"]),
        temperature=head["temperature"],
    )
    mocov3 = dict(model, type="MoCoV3", head=mocov3_head)
    steps = [Step("MoCoV3", mocov3, stock, args)]

    def add(name: str, k: int, optimizer: dict, **options) -> None:
        cfg = dict(model, head=dict(head, num_neighbors=k), **options)
        steps.append(Step(name, cfg, optimizer, args))

    for k in args.neighbors:
        add(f"SNCLR, K = {k}", k, stock)
    k = 30 if 30 in args.neighbors else args.neighbors[-1]
    options = {}
    name = ours["optimizer"]["type"]
    name = f"fused {name}" if ours["optimizer"].get("fused") else name
    add(f"  K = {k}, {name}", k, ours)
    if args.channels_last:
        options["channels_last"] = True
        add("  and channels last", k, ours, **options)
    if args.compile:
        options["compile"] = True
        add("  and torch.compile", k, ours, **options)
    return steps


def check(stock: Step, ours: Step, precision: str) -> dict:
    """Compare SNCLR without neighbors with MoCoV3, after CHECKED equal steps.

    Raises:
        SystemExit: If losses or momentum encoders differ by more than rounding.
    """
    pairs = zip(ours.losses, stock.losses, strict=True)
    losses = [abs(a - b) / abs(b) for a, b in pairs]
    pairs = zip(
        ours.model.momentum_encoder.state_dict().values(),
        stock.model.momentum_encoder.state_dict().values(),
        strict=True,
    )
    averages = [
        ((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).item()
        for a, b in pairs
        if a.is_floating_point()
    ]
    found = dict(loss=max(losses), momentum_encoder=max(averages))
    # Each by itself: max() overlooks what is not a number.
    if not all(value <= TOLERANCE[precision] for value in losses + averages):
        raise SystemExit(
            f"SNCLR with K = 0 is not MoCoV3: relative differences {found} after "
            f"{len(ours.losses)} steps, at most {TOLERANCE[precision]} expected."
        )
    return found


def measure(steps: list[Step], args: argparse.Namespace) -> dict | None:
    generator = torch.Generator().manual_seed(0)
    size = (2, args.batch, 3, args.image_size, args.image_size)
    views = list(torch.randn(size, generator=generator).to(args.device))
    differences = None
    for i in track(range(WARM_UP + args.iterations), description="steps"):
        for step in steps[i % len(steps) :] + steps[: i % len(steps)]:
            step.run(views)
        if i + 1 == CHECKED:
            without = [step for step in steps if step.name == "SNCLR, K = 0"]
            if without:
                differences = check(steps[0], without[0], args.precision)
    return differences


def summarize(steps: list[Step]) -> list[dict]:
    stock = steps[0].seconds[WARM_UP:]
    return [
        {
            "name": step.name.strip(),
            **summary(step.seconds[WARM_UP:], stock),
            "memory_gib": (memory := step.memory()) and memory / 2**30,
            "compiled": step.model.backbone._compiled_call_impl is not None,
            "losses": step.losses,
        }
        for step in steps
    ]


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    init_default_scope("mmpretrain")
    MMLogger.get_instance("benchmark_step", log_level="ERROR")
    torch.backends.cudnn.benchmark = True
    MessageHub.get_instance("benchmark_step").update_info("max_iters", 10_000)
    steps = build_steps(args)
    differences = measure(steps, args)
    rows = summarize(steps)
    record = {
        **{key: value for key, value in vars(args).items() if key != "out"},
        **machine(args.device),
        "difference_from_mocov3_without_neighbors": differences,
        "results": rows,
    }
    hardware = record.get("gpu", record["cpu"])
    print(
        f"\n{args.backbone}, {args.batch} images of {args.image_size} px, "
        f"{args.precision}, Q = {args.queue_length}; {hardware}, "
        f"{record['threads']} threads, torch {torch.__version__}\n\n"
        f"{'':28}{'ms':>9}{'quartiles':>20}{'ratio':>8}{'GiB':>8}"
    )
    for step, row in zip(steps, rows, strict=True):
        low, high = row["quartiles_ms"]
        memory = row["memory_gib"]
        print(
            f"{step.name:28}{row['ms']:9.1f}{f'{low:.1f} - {high:.1f}':>20}"
            f"{row['ratio']:8.3f}{'' if memory is None else f'{memory:8.2f}'}"
            f"{' (not compiled)' if _gave_up(row) else ''}"
        )
    write(args.out, record)
    print(f"\n{args.out}")
    return record


def _gave_up(row: dict) -> bool:
    return "compile" in row["name"] and not row["compiled"]


if __name__ == "__main__":
    main()
