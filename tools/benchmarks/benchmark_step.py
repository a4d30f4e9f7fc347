#!/usr/bin/env python
"""Time a whole training step: SNCLR over K, and its options, against stock MoCoV3.

A step is forward, backward, optimizer, momentum update and queue. The backbone,
projectors, batch, precision and optimizer are MMPretrain's for all rows, up to those
that say otherwise. All models take turns in one process, on the same drawn images, with
full queues of drawn features: neighbors hardly repeat, the dearest case. Where SNCLR
without neighbors is not MoCoV3, in losses and momentum encoders, the exit status tells.
"""

import argparse
import math
from copy import deepcopy
from functools import partial
from pathlib import Path

import report
import torch
from measuring import Record, interleave, make_parser, peak_bytes, summary
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

CONFIGS = Path(__file__).parents[2] / "configs"
CHECKED = 3  # first steps, in which SNCLR without neighbors must be MoCoV3
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 3e-2}
WRAPPERS = {
    ("cpu", "fp32"): dict(type="OptimWrapper"),
    ("cpu", "bf16"): dict(type="CPUAmpOptimWrapper"),
    ("cuda", "fp32"): dict(type="OptimWrapper"),
    ("cuda", "fp16"): dict(type="AmpOptimWrapper", loss_scale="dynamic"),
    ("cuda", "bf16"): dict(type="AmpOptimWrapper", dtype="bfloat16", loss_scale=1.0),
}
DEFAULTS = {
    "cuda": dict(
        backbone="resnet50", batch=256, image_size=224, precision="fp16",
        queue_length=65536, cudnn_benchmark="channels_last",
    ),
    "cpu": dict(
        backbone="resnet18", batch=32, image_size=64, precision="fp32",
        queue_length=16384, cudnn_benchmark="none",
    ),
}  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        __doc__,
        "benchmark_step.json",
        neighbors=([0, 10, 30, 100], "K of each SNCLR"),
        iterations=(15, "timed steps of each model"),
    )
    parser.epilog = f"Options without a default take these: {DEFAULTS}"
    parser.add_argument("--backbone", choices=["resnet18", "resnet50", "vit-small"])
    parser.add_argument("--batch", type=int, help="images, of which two views each")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--precision", choices=list(TOLERANCE))
    parser.add_argument("--queue-length", type=int)
    # What cuDNN chose is kept for all models of a format: one setting for each.
    parser.add_argument(
        "--cudnn-benchmark", choices=["none", "channels_last", "contiguous"],
        help="memory format in which cuDNN tries its algorithms out",
    )  # fmt: skip
    args = parser.parse_args(argv)
    for name, value in DEFAULTS[args.device].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if (args.device, args.precision) not in WRAPPERS:
        parser.error("--precision fp16 needs --device cuda: use fp32 or bf16")
    if min(args.batch, args.iterations) < 2:
        parser.error("--batch and --iterations must be at least 2")
    if not 0 <= max(args.neighbors) <= args.queue_length:
        parser.error(
            f"--neighbors must be between 0 and --queue-length {args.queue_length}"
        )
    return args


class Step:
    """A model, its optimizer and the losses of its steps.

    ``cudnn_benchmark`` is the memory format in which cuDNN tries its algorithms out.
    """

    def __init__(
        self, model: dict, optimizer: dict, device: str, cudnn_benchmark: str = "none"
    ) -> None:
        torch.manual_seed(0)
        self.model = MODELS.build(model)
        torch.manual_seed(0)
        self.model.init_weights()
        self.model.to(device).train()
        self.queue = getattr(self.model.head, "queue", None)
        if self.queue is not None:
            generator = torch.Generator().manual_seed(1)
            rows = torch.randn(self.queue.length, self.queue.dim, generator=generator)
            self.queue.enqueue(rows.to(device))
        self.wrapper = build_optim_wrapper(self.model, deepcopy(optimizer))
        self.losses: list[float] = []
        own = "channels_last" if model.get("channels_last") else "contiguous"
        self.cudnn_benchmark = cudnn_benchmark == own

    def run(self, views: list[torch.Tensor]) -> None:
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        with self.wrapper.optim_context(self.model):
            loss = self.model.loss(views, None)["loss"]
        self.wrapper.update_params(loss)
        self.losses.append(loss.item())
        if self.queue is not None:
            self.queue.commit(math.isfinite(self.losses[-1]))  # as NeighborQueueHook

    def state_bytes(self) -> int:
        """Bytes of weights, buffers and the optimizer's state."""
        state = self.wrapper.optimizer.state.values()
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [v for s in state for v in s.values() if torch.is_tensor(v)]
        return sum(t.numel() * t.element_size() for t in tensors)


def make_configs(args: argparse.Namespace) -> tuple[dict, dict, dict]:
    """The recipes' model, MMPretrain's optimizer and ours.

    The learning rate is the warm-up's first.
    """
    vit = args.backbone == "vit-small"
    cfg = Config.fromfile(
        CONFIGS / "imagenet/snclr_vit-small-p16_8xb512-300e_in1k.py"
        if vit
        else CONFIGS / "snclr_r50_8xb256.py"
    )
    model = cfg.model
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
    model.pop("data_preprocessor", None)  # the views are ready
    ours = cfg.optim_wrapper.to_dict()
    ours.pop("loss_scale", None)
    ours |= WRAPPERS[args.device, args.precision]
    ours["optimizer"]["lr"] *= cfg.param_scheduler[0].start_factor
    stock = deepcopy(ours)
    if vit:
        del stock["optimizer"]["fused"]
    else:
        stock["optimizer"]["type"] = "LARS"
    return model.to_dict(), stock, ours


def build_steps(args: argparse.Namespace) -> dict[str, Step]:
    """MoCoV3, then SNCLR over K, then one K with our optimizer and with options."""
    model, stock, ours = make_configs(args)
    head = model["head"]
    mocov3_head = dict(
        type="MoCoV3Head",
        predictor=head["predictor"],
        loss=dict(type="CrossEntropyLoss", loss_weight=head["loss_weight"]),
        temperature=head["temperature"],
    )
    mocov3 = dict(model, type="MoCoV3", head=mocov3_head)

    def snclr(k: int, optimizer: dict, **options) -> Step:
        cfg = dict(model, head=dict(head, num_neighbors=k), **options)
        return Step(cfg, optimizer, args.device, args.cudnn_benchmark)

    steps = {"MoCoV3": Step(mocov3, stock, args.device, args.cudnn_benchmark)}
    steps |= {f"SNCLR, K = {k}": snclr(k, stock) for k in args.neighbors}
    k = 30 if 30 in args.neighbors else args.neighbors[-1]
    fused = "fused " if ours["optimizer"].get("fused") else ""
    steps[f"K = {k}, {fused}{ours['optimizer']['type']}"] = snclr(k, ours)
    if args.backbone != "vit-small":
        last = snclr(k, ours, channels_last=True)
        steps["and channels last" + ", cudnn_benchmark" * last.cudnn_benchmark] = last
    return steps


def differences(stock: Step, ours: Step) -> dict[str, float]:
    """Relative ones of losses and momentum encoders, after equal steps."""

    def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().max().cpu() / b.abs().max().clamp(min=1e-3).cpu()

    states = (step.model.momentum_encoder.state_dict() for step in (ours, stock))
    pairs = zip(*(state.values() for state in states), strict=True)
    averages = [difference(a, b) for a, b in pairs if a.is_floating_point()]
    losses = difference(torch.tensor(ours.losses), torch.tensor(stock.losses))
    # max() of a tensor does not overlook what is not a number.
    average = torch.stack(averages).max().item()
    return dict(loss=losses.item(), momentum_encoder=average)


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    init_default_scope("mmpretrain")
    MMLogger.get_instance("benchmark_step", log_level="ERROR")
    MessageHub.get_instance("benchmark_step").update_info("max_iters", 10_000)
    record = Record(args)
    steps = build_steps(args)
    generator = torch.Generator().manual_seed(0)
    size = (2, args.batch, 3, args.image_size, args.image_size)
    views = list(torch.randn(size, generator=generator).to(args.device))
    functions = {name: partial(step.run, views) for name, step in steps.items()}
    interleave(functions, args.device, rounds=0, warmup=CHECKED)
    found = {}
    if "SNCLR, K = 0" in steps:
        found = differences(steps["MoCoV3"], steps["SNCLR, K = 0"])
        record["difference_from_mocov3_without_neighbors"] = found
    memory = {}
    if args.device != "cpu":
        for name, step in steps.items():
            size = step.state_bytes() + peak_bytes(functions[name], args.device)
            memory[name] = {"memory_gib": size / 2**30}

    def write(taken: dict[str, list[float]]) -> None:
        record["results"] = [
            {"name": name, **summary(seconds, taken["MoCoV3"]), **memory.get(name, {}),
             "losses": steps[name].losses}
            for name, seconds in taken.items()
        ]  # fmt: skip
        record.write()

    interleave(functions, args.device, args.iterations, warmup=0, after_round=write)
    report.show("step", record)
    if not all(value <= TOLERANCE[args.precision] for value in found.values()):
        raise SystemExit(
            f"SNCLR with K = 0 is not MoCoV3: relative differences {found} after "
            f"{CHECKED} steps, at most {TOLERANCE[args.precision]} expected."
        )
    return record


if __name__ == "__main__":
    main()
