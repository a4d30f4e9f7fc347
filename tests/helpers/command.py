"""Run the command-line tools, as users do or in this process."""

import importlib.util
import os
import subprocess
import sys
import traceback
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

from helpers.tiny import REPOSITORY

#: For ImageNet's pretraining configs: pictures of 32 px and few of them, at full width.
SMALL_PICTURES = [
    "train_dataloader.num_workers=0",
    "train_dataloader.dataset.pipeline.1.transforms.0.0.scale=32",
    "train_dataloader.dataset.pipeline.1.transforms.1.0.scale=32",
    "model.neck.hid_channels=64",
    "model.head.predictor.hid_channels=64",
    "model.head.queue.length=50",
    "model.head.num_neighbors=5",
    "train_cfg.max_epochs=1",
    "param_scheduler=[]",
]


def run(*command, cwd, fails=False, timeout=600):
    """Run a command; returns what it printed, and raises with it if it fails.

    Args:
        fails (bool): Expect an exit status other than 0.
        timeout (int): Seconds.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable},
        timeout=timeout,
    )
    assert (done.returncode != 0) == fails, done.stdout[-6000:]
    return done.stdout


def tool(name, *args, **kwargs):
    """Run tools/NAME, a Python or shell script, in a process of its own."""
    shell = [sys.executable] if name.endswith(".py") else []
    return run(*shell, REPOSITORY / "tools" / name, *args, **kwargs)


@cache
def load_tool(name):
    """The module tools/NAME, for its functions; ``main(argv)`` runs it here."""
    path = REPOSITORY / "tools" / name
    spec = importlib.util.spec_from_file_location(f"tool_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as Python does for a script
        spec.loader.exec_module(module)
    return module


def forget_instances():
    """Forget what MMEngine finds by name, as a new process has none of it."""
    for kind in (MMLogger, MessageHub, Visualizer):
        for cls in (kind, *kind.__subclasses__()):
            cls._instance_dict.clear()


def call(name, *args):
    """Run tools/NAME in this process: no start-up; returns what its main returns."""
    forget_instances()
    return load_tool(name).main([str(part) for part in args])


@contextmanager
def tools_in_process(but=None):
    """Let tools/compare.py call the other tools in this process: no start-up.

    Args:
        but (str): Where a run's folder has this in its name, it is as always.
    """
    compare = load_tool("compare.py")
    as_always = compare.run_tool

    def run_tool(name, options, folder, slot, jobs):
        if but is not None and but in str(folder):
            return as_always(name, options, folder, slot, jobs)
        log = folder / f"{name}.log"
        with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
            try:
                call(f"{name}.py", *options)
            except BaseException as error:
                traceback.print_exc()
                raise subprocess.CalledProcessError(1, name, output=log) from error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "run_tool", run_tool)
        yield
    forget_instances()  # their handlers write to the logs
