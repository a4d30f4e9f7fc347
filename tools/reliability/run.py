#!/usr/bin/env python
"""Attack training runs, and count what they survive: docs/reliability.md.

Runs are killed while they train and while they save, stopped by signals, given a full
disk, a folder they cannot write to and images that are not finite. Each must end bit by
bit as a run that was left alone. What is done is not done again: the results are in
WORK_DIR, one file for each case.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from snclr_mm.engine import StepGuardHook
from snclr_mm.engine.fileio.atomic_local_backend import PART
from snclr_mm.engine.hooks import exact_resume_hook
from snclr_mm.engine.hooks.robust_checkpoint_hook import EXIT_CODE, STOPPED

ROOT = Path(__file__).parents[2]
CONFIG = "configs/snclr_resnet-tiny_1xb128_fashion-mnist.py"
BATCH, IMAGES, EPOCHS = 16, 64, 6
SMALL = [
    "model.backbone.num_stages=1",
    "model.backbone.stem_channels=8",
    "model.backbone.base_channels=8",
    "model.backbone.strides=(2,)",
    "model.backbone.dilations=(1,)",
    "model.backbone.out_indices=(0,)",
    "model.neck.in_channels=8",
    "model.neck.hid_channels=16",
    "model.neck.out_channels=8",
    "model.head.predictor.in_channels=8",
    "model.head.predictor.hid_channels=16",
    "model.head.predictor.out_channels=8",
    "model.head.queue.dim=8",
    "model.head.queue.length=80",
    "model.head.attention.in_channels=8",
    "model.head.num_neighbors=4",
    "default_hooks.checkpoint.interval=1",
    "default_hooks.start.type=StartHook",
    "randomness.seed=0",
]
STARTED = "The first step is next."
PARTS = ("state_dict", "optimizer", "param_schedulers")


@HOOKS.register_module()
class StartHook(Hook):
    """Says on the screen that training starts."""

    priority = "VERY_LOW"

    def before_train(self, runner) -> None:
        """Print it."""
        print(STARTED, flush=True)


@HOOKS.register_module()
class AttackHook(Hook):
    """Spoils images of some steps; measures each step."""

    def __init__(self, bad: list = (), kind: str = "nan", measure: str = "") -> None:
        self.bad, self.kind, self.measure = set(bad), kind, measure
        self.times: list[float] = []
        self.marks: list[dict] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Spoil one image on one rank."""
        if runner.iter in self.bad and runner.iter % runner.world_size == runner.rank:
            views = data_batch["inputs"]
            views[0] = views[0].float()
            views[0][runner.iter % len(views[0])] = float(self.kind)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Note CPU time, memory and open files."""
        if not self.measure:
            return
        self.times.append(time.process_time())
        if (runner.iter + 1) % (runner.max_iters // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            steps = np.diff(self.times)
            self.times = []
            self.marks.append(
                {
                    "step": runner.iter + 1,
                    "resident MB": round(pages * resource.getpagesize() / 2**20, 1),
                    "open files": len(os.listdir("/proc/self/fd")),
                    "CPU ms per step": round(1000 * float(np.median(steps)), 2),
                }
            )
            Path(self.measure).write_text(json.dumps(self.marks))


@HOOKS.register_module()
class OverheadHook(Hook):
    """Turns the step guard and the seeds off for every other step, and compares."""

    priority = "VERY_LOW"

    def __init__(self, out: str) -> None:
        self.out = out
        self.times: dict[bool, list[float]] = {True: [], False: []}

    def before_train(self, runner) -> None:
        """Put a switch before what is measured."""
        self._on, self._start = True, time.process_time()
        guard, wrapper = StepGuardHook.of(runner), runner.optim_wrapper
        guarded, decide = wrapper.update_params, guard._decide
        seed, begin = exact_resume_hook.seed_everything, guard.before_train_iter

        def begin_plainly(*args, **kwargs) -> None:  # what it counts with must be there
            guard._first, guard._loss_is_finite, guard._batches = False, True, []

        def step_plainly(*args) -> None:
            guard.kept = True

        def switch(on: Callable, off: Callable) -> Callable:
            return lambda *args, **kwargs: (on if self._on else off)(*args, **kwargs)

        exact_resume_hook.seed_everything = switch(seed, lambda *numbers: None)
        guard.before_train_iter = switch(begin, begin_plainly)
        unguarded = partial(type(wrapper).update_params, wrapper)
        wrapper.update_params = switch(guarded, unguarded)
        wrapper.optimizer._optimizer_step_pre_hooks.clear()
        wrapper.optimizer.register_step_pre_hook(switch(decide, step_plainly))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Note the CPU time of the step, data loading included: others may be busy."""
        now = time.process_time()
        if runner.iter >= 8:
            self.times[self._on].append(now - self._start)
        # On, off, off, on: a drift adds to both alike.
        self._on, self._start = (runner.iter + 1) % 4 in (0, 3), now
        if runner.iter + 1 == runner.max_iters:
            on, off = (np.array(self.times[key]) for key in (True, False))
            ratios = on / off  # of neighbors
            drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
            text = {
                "pairs": len(ratios),
                "ms on": 1e3 * float(np.median(on)),
                "ms off": 1e3 * float(np.median(off)),
                "ratio": float(np.median(ratios)),
                "95 %": np.quantile(np.median(drawn, 1), [0.025, 0.975]).tolist(),
            }
            Path(self.out).write_text(json.dumps(text))


def load_train() -> Callable:
    """The main function of tools/train.py."""
    sys.path.insert(0, str(ROOT / "tools"))
    # MMEngine's pretty-printing of a config takes seconds, for each checkpoint.
    import yapf.yapflib.yapf_api as yapf
    from train import main

    yapf.FormatCode = lambda text, **_: (text, 0)
    return main


def write_data(folder: Path, count: int = IMAGES) -> None:
    """Random images in Fashion-MNIST's file format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    for split in ("train", "t10k"):
        for kind, data in (("images-idx3", images), ("labels-idx1", labels)):
            header = np.array([0x800 + data.ndim, *data.shape], dtype=">i4")
            path = folder / f"{split}-{kind}-ubyte"
            path.write_bytes(header.tobytes() + data.tobytes())


class Run:
    """Training in processes of its own, forked: they need not import torch again."""

    def __init__(self, root: Path, folder: Path, ranks: int = 1, *options: str) -> None:
        self.folder, self.ranks = folder, ranks
        self.log = root / f"{folder.name}.log"
        self.options = [
            f"train_dataloader.dataset.data_root={root / 'data'}",
            f"train_dataloader.batch_size={BATCH // ranks}",
            "train_dataloader.num_workers=0",
            f"train_cfg.max_epochs={EPOCHS}",
            *SMALL,
            *options,
        ]

    def start(self, before: Callable = lambda: None) -> list[int]:
        """Start or resume; returns the processes by rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        argv = [str(ROOT / CONFIG), "--no-validate", "--work-dir", str(self.folder)]
        argv += ["--resume", "--launcher", "pytorch" if self.ranks > 1 else "none"]
        argv += ["--cfg-options", *self.options]
        children = []
        for rank in range(self.ranks):
            child = os.fork()
            if child == 0:
                self._train(rank, port, argv, before)
            children.append(child)
        return children

    def _train(self, rank: int, port: int, argv: list[str], before: Callable) -> None:
        code = 1
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)
            torch.set_num_threads(1)
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(self.ranks),
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
            )  # fmt: skip
            before()
            TRAIN(argv)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
            print(error.code)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def wait(self, children: list[int], limit: float = 900) -> list[int]:
        """Exit codes by rank, negative for signals."""
        end, codes = time.monotonic() + limit, {}
        while len(codes) < len(children):
            for child in children:
                if child not in codes:
                    done, status = os.waitpid(child, os.WNOHANG)
                    if done:
                        codes[child] = os.waitstatus_to_exitcode(status)
            failed = any(code not in (0, EXIT_CODE) for code in codes.values())
            if failed or time.monotonic() > end:  # as a launcher does
                for child in set(children) - set(codes):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.005)
        return [codes[child] for child in children]

    def finish(self) -> list[int]:
        """Train to the end."""
        return self.wait(self.start())

    def saved(self) -> int:
        """Epochs in the newest complete checkpoint."""
        names = [path.stem for path in self.folder.glob("epoch_*.pth")]
        return max((int(name.removeprefix("epoch_")) for name in names), default=0)

    def wait_for(self, child: int, happens: Callable[[], bool]) -> None:
        """Wait until something happens, or the process ends."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while not happens() and not os.waitid(os.P_PID, child, options):
            time.sleep(0.002)

    def text(self, start: int = 0) -> str:
        """What was printed, from a position on."""
        return self.log.read_text()[start:] if self.log.exists() else ""

    def says(self, text: str, start: int = 0) -> bool:
        """Whether it has printed a text, from a position on."""
        return text in self.text(start)

    def end_state(self) -> dict:
        """The last checkpoint."""
        return torch.load(self.folder / f"epoch_{EPOCHS}.pth", weights_only=False)


def differences(first, second, name: str = "") -> list[str]:
    """Names of what is not bitwise equal."""
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [name]
    if isinstance(first, list | tuple):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if isinstance(first, dict):
        if list(first) != list(second):
            return [name]
        pairs = [(first[k], second[k], f"{name}.{k}") for k in first]
        return [text for pair in pairs for text in differences(*pair)]
    return [] if first == second else [name]


def compare(run: Run, whole: dict) -> list[str]:
    """What differs at the end from the run that was left alone."""
    end = run.end_state()
    return [text for part in PARTS for text in differences(whole[part], end[part])]


def reference(root: Path, ranks: int) -> tuple[dict, float]:
    """End state of a run that is left alone, and the seconds that it trained."""
    run = Run(root, root / f"alone-{ranks}", ranks)
    started = time.monotonic()
    if not (run.folder / f"epoch_{EPOCHS}.pth").exists():
        children = run.start()
        run.wait_for(children[0], partial(run.says, STARTED))
        started = time.monotonic()
        assert run.wait(children) == [0] * ranks, "the reference run failed"
        assert run.says(STARTED)  # else kills would come too late
    return run.end_state(), max(time.monotonic() - started, 1.0)


def kills(root: Path, count: int, ranks: int, keep: int) -> dict:
    """SIGKILL at random moments, every other one while a file is being written."""
    rng = random.Random(f"{ranks} {keep}")
    whole, duration = reference(root, ranks)
    result = {"kills": 0, "while saving": 0, "while starting": 0, "lost": 0, "runs": 0}
    result["unequal"] = []
    option = f"default_hooks.checkpoint.max_keep_ckpts={keep}"
    run = Run(root, root / f"kills-{ranks}-{keep}", ranks, option)
    while result["kills"] < count:
        shutil.rmtree(run.folder, ignore_errors=True)
        codes, saved = None, 0
        while codes != [0] * ranks:
            printed = run.log.stat().st_size if run.log.exists() else 0
            for old in run.folder.glob(f"*{PART}"):  # of the last kill
                old.unlink()
            children = run.start()
            part, at_kill = False, saved
            trains = partial(run.says, STARTED, printed)
            if result["kills"] < count:
                if rng.random() < 0.9:  # else also while it starts
                    run.wait_for(children[0], trains)
                time.sleep(rng.uniform(0, duration / 2))
                if result["kills"] % 2:
                    run.wait_for(children[0], lambda: any(run.folder.glob(f"*{PART}")))
                started = trains()
                at_kill = run.saved()
                part = bool(list(run.folder.glob(f"*{PART}")))
                for child in rng.sample(children, ranks):
                    os.kill(child, signal.SIGKILL)
                    time.sleep(0.02)
            codes = run.wait(children)
            found = re.findall(r"resumed epoch: (\d+)", run.text(printed))
            result["lost"] += bool(found) and int(found[0]) < saved
            if -signal.SIGKILL in codes:
                result["kills"] += 1
                result["while saving"] += part
                result["while starting"] += not started
                saved = at_kill
            elif codes != [0] * ranks:
                raise RuntimeError(f"{run.log} says why it ended with {codes}")
        result["runs"] += 1
        result["unequal"] += compare(run, whole)[:5]
    return result


def signals(root: Path, ranks: int) -> dict:
    """Each signal to one rank: saved, exit code 75, and the same end."""
    whole, _ = reference(root, ranks)
    result = {}
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"):
        run = Run(root, root / f"{name}-{ranks}", ranks)
        shutil.rmtree(run.folder, ignore_errors=True)
        children = run.start()
        while not run.saved():
            time.sleep(0.01)
        os.kill(children[-1], getattr(signal, name))
        codes = run.wait(children)
        saved = [path.name for path in run.folder.glob(STOPPED.format("*"))]
        assert run.finish() == [0] * ranks
        result[name] = {
            "exit codes": codes, "saved": saved, "unequal": compare(run, whole)
        }  # fmt: skip
    return result


def full_disk(root: Path) -> dict:
    """No file may be longer than half a checkpoint, after the second one."""
    whole, _ = reference(root, 1)
    run = Run(root, root / "full-disk")
    shutil.rmtree(run.folder, ignore_errors=True)
    size = (root / "alone-1" / f"epoch_{EPOCHS}.pth").stat().st_size // 2
    shutil.copytree(root / "alone-1", run.folder)
    for path in run.folder.glob("epoch_*.pth"):
        if int(path.stem.removeprefix("epoch_")) > EPOCHS - 2:
            path.unlink()
    before = run.saved()
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    codes = run.wait(run.start(limit))
    kept = run.saved() == before and not list(run.folder.glob("*.part"))
    assert run.finish() == [0]
    return {"exit codes": codes, "kept": kept, "unequal": compare(run, whole)}


def read_only(root: Path) -> dict:
    """A folder that this user may not write to."""
    folder = root / "read-only"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    run = Run(root, folder / "run")

    def become_nobody() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)

    codes = run.wait(run.start(become_nobody))
    text = (root / "run.log").read_text()
    return {"exit codes": codes, "message": text.strip().splitlines()[-1]}


def poison(root: Path, kind: str, ranks: int) -> dict:
    """A third of the steps see an image that is not finite, on one of the ranks."""
    bad = [i for i in range(EPOCHS * IMAGES // BATCH) if i % 3 == 1]
    hook = dict(type="AttackHook", kind=kind, bad=str(bad).replace(" ", ""))
    options = [f"default_hooks.attack.{key}={value}" for key, value in hook.items()]
    run = Run(root, root / f"poison-{kind}-{ranks}", ranks, *options)
    shutil.rmtree(run.folder, ignore_errors=True)
    codes = run.finish()
    end = run.end_state()
    values = end["state_dict"].values()
    return {
        "exit codes": codes,
        "bad steps": len(bad),
        "skipped": end["message_hub"]["runtime_info"]["skipped_steps"],
        "finite": all(bool(v.isfinite().all()) for v in values),
        "keys in the queue": int(end["state_dict"]["head.queue.count"]),
    }


def long_run(root: Path, steps: int) -> dict:
    """Many tiny steps: memory, step time and open files must stay flat."""
    out = root / "long.json"
    run = Run(
        root,
        root / "long",
        1,
        f"train_cfg.max_epochs={steps * BATCH // IMAGES}",
        f"default_hooks.checkpoint.interval={steps * BATCH // IMAGES // 10}",
        "default_hooks.attack.type=AttackHook",
        f"default_hooks.attack.measure={out}",
        "default_hooks.logger.interval=1000",
    )
    codes = run.wait(run.start(), 4 * 3600)
    return {"exit codes": codes, "marks": json.loads(out.read_text())}


def overhead(root: Path, steps: int) -> dict:
    """On and off in turn in one run, of the Fashion-MNIST recipe's own size."""
    out = root / "overhead.json"
    write_data(root / "batch", 128)  # one batch of the recipe, an epoch per step
    run = Run(root, root / "overhead")
    run.options = [
        f"train_dataloader.dataset.data_root={root / 'batch'}",
        "train_dataloader.num_workers=0",
        f"train_cfg.max_epochs={steps}",
        f"default_hooks.checkpoint.interval={steps}",
        "default_hooks.overhead.type=OverheadHook",
        f"default_hooks.overhead.out={out}",
        "default_hooks.logger.interval=1000",
        "randomness.seed=0",
    ]
    shutil.rmtree(run.folder, ignore_errors=True)
    codes = run.wait(run.start(), 4 * 3600)
    return {"exit codes": codes, **json.loads(out.read_text())}


def cases(args: argparse.Namespace) -> dict[str, Callable]:
    """All cases by name; each takes the work directory."""
    each = -(-args.kills // 4)
    table: dict[str, Callable] = {}
    for ranks in (1, 2):
        for keep in (1, 3):
            part = dict(count=each, ranks=ranks, keep=keep)
            table[f"kills-{ranks}-{keep}"] = partial(kills, **part)
    for ranks in (1, 2):
        table[f"signals-{ranks}"] = partial(signals, ranks=ranks)
        for kind in ("nan", "inf"):
            table[f"poison-{kind}-{ranks}"] = partial(poison, kind=kind, ranks=ranks)
    table |= {"full-disk": full_disk, "read-only": read_only}
    table["overhead"] = partial(overhead, steps=args.overhead_steps)
    table["long-run"] = partial(long_run, steps=args.steps)
    return table


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/reliability"))
    parser.add_argument("--kills", type=int, default=50, help="in all (default: 50)")
    parser.add_argument("--steps", type=int, default=20_000, help="of the long run")
    parser.add_argument("--overhead-steps", type=int, default=60)
    parser.add_argument("--only", nargs="+", help="of these cases alone")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    root = args.work_dir.resolve()
    (root / "results").mkdir(parents=True, exist_ok=True)
    write_data(root / "data")
    global TRAIN
    TRAIN = load_train()
    results = {}
    for name, case in cases(args).items():
        if args.only and name not in args.only:
            continue
        file = root / "results" / f"{name}.json"
        if not file.exists():
            started = time.monotonic()
            result = case(root)
            result["seconds"] = round(time.monotonic() - started)
            file.write_text(json.dumps(result, indent=1))
        results[name] = json.loads(file.read_text())
        print(name, json.dumps(results[name]), flush=True)
    return results


if __name__ == "__main__":
    main()
