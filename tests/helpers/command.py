"""Run the command-line tools as users do."""

import os
import subprocess
import sys

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
    """Run tools/NAME, a Python or shell script."""
    shell = [sys.executable] if name.endswith(".py") else []
    return run(*shell, REPOSITORY / "tools" / name, *args, **kwargs)
