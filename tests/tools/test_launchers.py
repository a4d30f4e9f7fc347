import os

import pytest
from command import run
from tiny import REPOSITORY


@pytest.fixture
def launchers(tmp_path, monkeypatch):
    """Fake python and srun that print their arguments instead of running."""
    for name in ("python", "srun"):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def launch(script, *args, **env):
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("PYTHON", "python")
        command = ["env", "PYTHON=python", REPOSITORY / "tools" / script, *args]
        return run(*command, cwd=tmp_path)

    return launch


def test_several_nodes(launchers):
    nodes = dict(NNODES="4", NODE_RANK="2", MASTER_ADDR="10.0.0.1", PORT="1234")
    output = launchers("dist_train.sh", "a.py", "8", "--resume", **nodes)
    for part in (
        "-m torch.distributed.run --nnodes=4 --node_rank=2 --master_addr=10.0.0.1 "
        "--master_port=1234 --nproc_per_node=8",
        f"{REPOSITORY}/tools/train.py a.py --launcher pytorch --resume",
    ):
        assert part in output
    output = launchers("dist_test.sh", "a.py", "b.pth", "2", "--out=c d.json")
    assert "--nproc_per_node=2" in output
    assert f"{REPOSITORY}/tools/test.py a.py b.pth --launcher pytorch" in output
    assert output.rstrip().endswith("--out=c d.json")


def test_slurm(launchers):
    env = dict(GPUS="16", GPUS_PER_NODE="4", CPUS_PER_TASK="7", SRUN_ARGS="-A me")
    output = launchers("slurm_train.sh", "part", "job", "a.py", "w", "--amp", **env)
    for part in (
        "srun -p part --job-name=job --gres=gpu:4 --ntasks=16 --ntasks-per-node=4 "
        "--cpus-per-task=7 --kill-on-bad-exit=1 -A me",
        f"-u {REPOSITORY}/tools/train.py a.py --work-dir=w --launcher=slurm --amp",
    ):
        assert part in output
    output = launchers("slurm_test.sh", "part", "job", "a.py", "b.pth")
    assert f"-u {REPOSITORY}/tools/test.py a.py b.pth --launcher=slurm" in output


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh"])
def test_missing_arguments(script, tmp_path):
    output = run(REPOSITORY / "tools" / script, cwd=tmp_path, fails=True)
    assert f"usage: {script}" in output
