import os
import re
import socket
import threading

import pytest
from helpers.command import run
from helpers.ranks import run_on_ranks
from helpers.tiny import CONFIG, REPOSITORY, build_runner
from mmengine.config import Config


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
    output = launchers("dist_train.sh", "a.py", "8", **nodes, MAX_RESTARTS="3")
    rendezvous = "--rdzv-backend=c10d --rdzv-id=1234 --rdzv-endpoint=10.0.0.1:1234"
    assert f"--nnodes=4 {rendezvous} --max-restarts=3 --nproc_per_node=8" in output
    output = launchers("dist_test.sh", "a.py", "b.pth", "2", "--out=c d.json")
    assert "--nproc_per_node=2" in output
    assert f"{REPOSITORY}/tools/test.py a.py b.pth --launcher pytorch" in output
    assert output.rstrip().endswith("--out=c d.json")


SMALL = """
_base_ = {base!r}
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type="ImageFolder", data_root={root!r}),
)
train_cfg = dict(max_epochs=1)
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
model = dict(head=dict(queue=dict(length=40), num_neighbors=3))
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""


def test_two_nodes_train_as_one(image_folder, tmp_path):
    """Two launchers, each with one process, as on two machines."""
    config = tmp_path / "small.py"
    config.write_text(SMALL.format(base=str(CONFIG), root=str(image_folder)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = {}

    def launch(node):
        variables = ["NNODES=2", f"NODE_RANK={node}", f"PORT={port}"]
        script = REPOSITORY / "tools/dist_train.sh"
        command = ["env", *variables, script, config, 1, "--work-dir", "two"]
        outputs[node] = run(*command, cwd=tmp_path)

    nodes = [threading.Thread(target=launch, args=(node,)) for node in range(2)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join()
    losses = re.findall(r" loss: ([\d.]+)", outputs[0])
    assert len(losses) == 6  # 48 images, 2 x 4 per step
    assert not re.search(r" loss: ", outputs[1])  # the first node logs
    run_on_ranks(2, train_rank, config, tmp_path / "one")
    (log,) = (tmp_path / "one").glob("*/*.log")
    assert losses == re.findall(r" loss: ([\d.]+)", log.read_text())


def train_rank(rank, config, work_dir):
    cfg = Config.fromfile(config)
    cfg.launcher, cfg.work_dir = "pytorch", str(work_dir)
    build_runner(cfg).train()


def test_slurm(launchers):
    env = dict(GPUS="16", GPUS_PER_NODE="4", CPUS_PER_TASK="7", SRUN_ARGS="-A me")
    output = launchers("slurm_train.sh", "part", "job", "a.py", "w", "--amp", **env)
    for part in (
        "srun -p part --job-name=job --gres=gpu:4 --ntasks=16 --ntasks-per-node=4 "
        "--cpus-per-task=7 --kill-on-bad-exit=1 --signal=USR1@180 -A me",
        f"-u {REPOSITORY}/tools/train.py a.py --work-dir=w --launcher=slurm --amp",
    ):
        assert part in output
    output = launchers("slurm_test.sh", "part", "job", "a.py", "b.pth")
    assert f"-u {REPOSITORY}/tools/test.py a.py b.pth --launcher=slurm" in output


FAKE_SRUN = """#!/bin/sh
case "$*" in
    *--resume) echo "resumed: $*"; exit {second} ;;
    *) touch w/stopped_at_iter_6.pth; exit 137 ;;
esac
"""


@pytest.mark.parametrize("job", ["", "17"])
def test_slurm_requeues_what_was_stopped(launchers, tmp_path, job, monkeypatch):
    """Without a batch job in a new one, once, as the second run fails otherwise."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "w").symlink_to(tmp_path / "scratch")
    (tmp_path / "srun").write_text(FAKE_SRUN.format(second=0))
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho scontrol $*")
    scontrol.chmod(0o755)
    if not job:
        output = launchers("slurm_train.sh", "p", "j", "a.py", "w", SLURM_JOB_ID="")
        assert output.count("resumed: ") == 1 and "scontrol" not in output
        (tmp_path / "srun").write_text(FAKE_SRUN.format(second=3))
        command = ["slurm_train.sh", "p", "j", "a.py", "w"]
        command[0] = REPOSITORY / "tools" / command[0]
        assert run(*command, cwd=tmp_path, fails=True).count("resumed: ") == 1
    else:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        script = REPOSITORY / "tools/slurm_train.sh"
        output = run(script, "p", "j", "a.py", "w", cwd=tmp_path, fails=True)
        assert output == "scontrol requeue 17\n"


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh"])
def test_missing_arguments(script, tmp_path):
    output = run(REPOSITORY / "tools" / script, cwd=tmp_path, fails=True)
    assert f"usage: {script}" in output
