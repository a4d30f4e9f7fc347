import multiprocessing
import os
import shutil
import signal
import subprocess
import time
import zipfile

import pytest
import torch
from helpers.tiny import CONFIG, build_runner, tiny_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from torch.testing import assert_close

from snclr_mm.engine import AtomicLocalBackend
from snclr_mm.engine.hooks import robust_checkpoint_hook


@HOOKS.register_module(force=True)
class Kill(Hook):
    """Sends this process signals before some iteration; counts the first one."""

    def __init__(self, number=None, iteration=None, weights=None):
        self.number, self.iteration, self.weights = number, iteration, weights
        self.started = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.started = runner.iter if self.started is None else self.started
        if runner.iter == self.iteration and self.number:
            os.kill(os.getpid(), self.number)
            os.kill(os.getpid(), self.number)  # launchers pass it on again

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.iteration and self.weights is not None:
            runner.model.backbone.conv1.weight.data[0] = self.weights


def build(data_root, work_dir, resume=False, kill=(), **overrides):
    cfg = tiny_config(data_root, work_dir, **overrides)
    cfg.custom_hooks = [dict(type="NeighborQueueHook"), dict(type="Kill", **dict(kill))]
    cfg.resume = resume
    return build_runner(cfg)


def train(*args, **kwargs):
    """Train; returns the first iteration, and the log."""
    runner = build(*args, **kwargs)
    runner.train()
    (kill,) = [h for h in runner.hooks if isinstance(h, Kill)]
    with open(runner.logger.handlers[1].baseFilename) as file:
        return kill.started, file.read()


@pytest.fixture(scope="module")
def finished(digits_root, tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    train(digits_root, folder)
    return folder


def resume_third_epoch(data_root, folder):
    return train(data_root, folder, resume=True, train_cfg__max_epochs=3)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "altered":
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        content[largest.header_offset + largest.file_size // 2 + 200] ^= 1
    else:
        content = content[: {"empty": 0, "truncated": len(content) // 2}[how]]
    path.write_bytes(content)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("empty", marks=pytest.mark.slow),
        pytest.param("truncated", marks=pytest.mark.slow),
        "altered",
        "missing",
    ],
)
def test_resume_takes_the_newest_good_checkpoint(digits_root, tmp_path, finished, how):
    """In a folder that was moved, with the newest file broken."""
    folder = shutil.copytree(finished, tmp_path / "moved")
    if how == "missing":
        (folder / "epoch_2.pth").unlink()
    else:
        damage(folder / "epoch_2.pth", how)
    started, log = resume_third_epoch(digits_root, folder)
    assert started == 4
    assert (how == "missing") != ("Not resumed from this file" in log)
    assert (folder / "last_checkpoint").read_text() == str(folder / "epoch_3.pth")


def test_resume_without_the_file_last_checkpoint(digits_root, tmp_path, finished):
    folder = shutil.copytree(finished, tmp_path / "moved")
    (folder / "last_checkpoint").unlink()
    (folder / "epoch_9.pth.part").touch()  # of a run that was killed while saving
    assert resume_third_epoch(digits_root, folder)[0] == 8
    assert not list(folder.glob("*.part"))


def test_resume_with_nothing_to_resume_from(digits_root, tmp_path):
    started, log = train(digits_root, tmp_path, resume=True)
    assert started == 0
    assert f"There is no checkpoint in {tmp_path}" in log
    for path in tmp_path.glob("*.pth"):
        damage(path, "truncated")
    with pytest.raises(FileNotFoundError, match="None of the 2 checkpoints"):
        train(digits_root, tmp_path, resume=True)


def test_a_new_run_over_an_old_one_warns(digits_root, tmp_path, finished):
    folder = shutil.copytree(finished, tmp_path / "old")
    started, log = train(digits_root, folder)
    assert started == 0
    assert "will be overwritten. To continue that run: --resume" in log


@pytest.mark.parametrize("name", robust_checkpoint_hook.RESTARTS)
def test_a_restart_resumes(digits_root, tmp_path, finished, name, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "old")
    monkeypatch.setenv(name, "1")
    assert train(digits_root, folder, train_cfg__max_epochs=3)[0] == 8
    assert train(digits_root, tmp_path / "new")[0] == 0


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGUSR1,
        *(
            pytest.param(number, marks=pytest.mark.slow)
            for number in robust_checkpoint_hook.SIGNALS
            if number != signal.SIGUSR1
        ),
    ],
)
def test_a_signal_stops_a_run_that_can_go_on(digits_root, tmp_path, number):
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        train(digits_root, tmp_path, kill=dict(number=number, iteration=5))
    assert stopped.value.code == 75
    assert signal.getsignal(number) == handler
    assert (tmp_path / "stopped_at_iter_6.pth").exists()
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "Stopped by a signal after iteration 6 of 8; continue with --resume" in log
    assert train(digits_root, tmp_path, resume=True)[0] == 6
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "epoch_1.pth",
        "epoch_2.pth",
    ]


@HOOKS.register_module(force=True)
class KillAll(Hook):
    """SIGTERM of another process, to this one and to those that load its data."""

    def __init__(self, where):
        # The hook for checkpoints is VERY_LOW, the guard that hears of signals LOWEST.
        self.where = where
        self.priority = "LOWEST" if where == "after the hook" else "NORMAL"

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1 and self.where == "before":
            self.kill()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 1 and self.where.startswith("after"):
            self.kill()

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 4 and self.where == "validation":
            self.kill()
        elif runner.iter == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            subprocess.run(["true"], check=True)  # a worker that has ended as it should

    def kill(self):
        workers = multiprocessing.active_children()
        pids = [str(process.pid) for process in workers]
        subprocess.run(["kill", "-TERM", str(os.getpid()), *pids], check=True)
        time.sleep(0.5)  # they die, and torch hears of it


def train_and_kill_all(data_root, work_dir, where, **changes):
    loader = dict(num_workers=1, persistent_workers=True, timeout=600)
    changes |= {f"train_dataloader__{key}": value for key, value in loader.items()}
    cfg = tiny_config(data_root, work_dir, **changes)
    hooks = [dict(type="NeighborQueueHook"), dict(type="KillAll", where=where)]
    cfg.custom_hooks = hooks
    if where.startswith("validation"):
        stock = Config.fromfile(CONFIG)
        small = dict(data_root=str(data_root), indices=24)
        stock.val_dataloader.dataset.update(small)
        stock.val_cfg.bank_dataloader.dataset.update(small)
        for key in ("val_dataloader", "val_evaluator", "val_cfg"):
            cfg[key] = stock[key]
        cfg.custom_hooks.append(dict(type="EMAHook"))
    build_runner(cfg).train()


@pytest.mark.parametrize(
    "where, step", [("before", 1), ("after", 2), ("after the hook", 2)]
)
def test_sigterm_to_the_data_workers_too(digits_root, tmp_path, where, step):
    """As systemd, timeout and most schedulers send it; also after the ranks' flag."""
    with pytest.raises(SystemExit) as stopped:
        train_and_kill_all(digits_root, tmp_path, where)
    assert stopped.value.code == 75
    assert (tmp_path / f"stopped_at_iter_{step}.pth").exists()
    subprocess.run(["true"], check=True)  # its end says no more of the dead ones
    started, _ = train(digits_root, tmp_path, resume=True)
    assert started == step


@pytest.mark.parametrize(
    "where, epoch, step",
    [("validation", 1, 4), ("validation, to the run alone", 1, 5)],
)
def test_sigterm_in_validation(digits_root, tmp_path, where, epoch, step):
    """It waits for the end of validation, and for the step after it if there is one."""
    with pytest.raises(SystemExit) as stopped:
        train_and_kill_all(digits_root, tmp_path, where)
    assert stopped.value.code == 75
    assert "knn/top1" in next(tmp_path.glob("*/*.log")).read_text()
    path = tmp_path / f"stopped_at_iter_{step}.pth"
    saved = torch.load(path, weights_only=False)
    assert (saved["meta"]["epoch"], saved["meta"]["iter"]) == (epoch, step)
    if step == 4:  # as the checkpoint of the epoch, the averaged weights too
        regular = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
        assert saved["param_schedulers"] == regular["param_schedulers"]
        for key in ("state_dict", "ema_state_dict"):
            assert_close(saved[key], regular[key], rtol=0, atol=0)
    started, _ = train(digits_root, tmp_path, resume=True)
    assert started == step


def test_sigterm_to_the_data_workers_between_the_batches_of_a_step(
    digits_root, tmp_path
):
    changes = dict(optim_wrapper__accumulative_counts=2)
    with pytest.raises(RuntimeError, match="SIGTERM has ended the data workers too"):
        train_and_kill_all(digits_root, tmp_path, "before", **changes)
    assert not list(tmp_path.glob("*.pth"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "keep, when",
    [
        (1, "fsync"),
        pytest.param(3, "fsync", marks=pytest.mark.slow),
        pytest.param(1, "replace", marks=pytest.mark.slow),
        (3, "replace"),
    ],
)
def test_killed_while_saving(digits_root, tmp_path, keep, when, monkeypatch):
    """As SIGKILL would leave it: with half a file, and nothing cleaned up."""
    calls = []

    def kill(*args):
        calls.append(args)
        if len(calls) > 2 * 2:  # two checkpoints, or a checkpoint and its folder each
            raise Killed
        return original(*args)

    original = getattr(os, when)
    changes = dict(
        default_hooks__checkpoint__max_keep_ckpts=keep, train_cfg__max_epochs=4
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, when, kill)
        patch.setattr(type(tmp_path), "unlink", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            train(digits_root, tmp_path, **changes)
    saved = len(calls) // 2 if when == "replace" else (len(calls) - 1) // 4
    started, _ = train(digits_root, tmp_path, resume=True, **changes)
    assert started == 4 * max(saved, 1)
    assert len(list(tmp_path.glob("*.pth"))) == min(keep, 4)


def test_old_files_go_when_the_new_one_is_there(digits_root, tmp_path, monkeypatch):
    seen = []
    put = AtomicLocalBackend.put

    def watch(self, obj, filepath):
        seen.append(sorted(p.name for p in tmp_path.glob("*.pth")))
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, "put", watch)
    train(
        digits_root,
        tmp_path,
        default_hooks__checkpoint__max_keep_ckpts=1,
        train_cfg__max_epochs=3,
    )
    assert seen[2:5:2] == [["epoch_1.pth"], ["epoch_2.pth"]]
    assert [p.name for p in tmp_path.glob("*.pth")] == ["epoch_3.pth"]


def test_a_better_checkpoint_replaces_the_best_when_it_is_there(tmp_path):
    hook = robust_checkpoint_hook.RobustCheckpointHook(save_best="acc", rule="greater")
    hook.out_dir, hook.file_backend, hook.last_ckpt = (
        str(tmp_path), AtomicLocalBackend(), None,
    )  # fmt: skip

    class Hub(dict):
        runtime_info = property(lambda self: self)
        update_info, get_info = dict.__setitem__, dict.__getitem__

    class Runner:
        epoch = iter = 1
        message_hub = Hub()

        class logger:
            info = warning = staticmethod(print)

        def save_checkpoint(self, out_dir, filename, **kwargs):
            self.seen = [p.name for p in tmp_path.glob("*.pth")]
            (tmp_path / filename).touch()

    runner = Runner()
    hook._save_best_checkpoint(runner, {"acc": 1})
    runner.epoch = 2
    hook._save_best_checkpoint(runner, {"acc": 2})
    assert runner.seen == ["best_acc_epoch_1.pth"]
    hook._save_best_checkpoint(runner, {"acc": 3})  # again in this epoch
    assert [p.name for p in tmp_path.glob("*.pth")] == ["best_acc_epoch_2.pth"]


def test_a_state_that_is_not_finite_is_not_saved(digits_root, tmp_path):
    kill = dict(iteration=7, weights=float("nan"))
    with pytest.raises(RuntimeError, match="backbone.conv1.weight is not finite"):
        train(digits_root, tmp_path, kill=kill)
    assert [p.name for p in tmp_path.glob("*.pth")] == ["epoch_1.pth"]


def test_a_full_disk(digits_root, tmp_path):
    import resource

    train(digits_root, tmp_path)
    size = (tmp_path / "epoch_1.pth").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"epoch_3.pth could not be saved .*--resume"):
            resume_third_epoch(digits_root, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(
        p.name for p in tmp_path.glob("*") if p.is_file() and "pth" in p.name
    ) == [
        "epoch_1.pth",
        "epoch_2.pth",
    ]
    assert resume_third_epoch(digits_root, tmp_path)[0] == 8
