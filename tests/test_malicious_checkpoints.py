"""Every bad checkpoint against every way in: nothing runs, and errors are clear."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.bad_checkpoints import BAD, MARKER
from helpers.command import call, load_tool
from helpers.tiny import (
    CONFIG,
    REPOSITORY,
    TINY_BACKBONE,
    TINY_PRETRAINING,
    build_runner,
    tiny_config,
)
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModule
from mmpretrain import get_model
from mmpretrain.registry import MODELS

from snclr_mm.checkpoint_safety import CheckpointError, load_checkpoint
from snclr_mm.cli import check_pretrained
from snclr_mm.engine.hooks import CheckpointCheckHook

LINEAR = (
    REPOSITORY
    / "configs/benchmarks/classification"
    / "linear_resnet-tiny_1xb128-coslr-20e_fashion-mnist.py"
)
#: What a reader of an error can act on; all else is an obscure traceback.
CLEAR = (CheckpointError, ValueError, FileNotFoundError, SystemExit)
#: How early each way in has to refuse, as `Bad.refused` counts.
LEVELS = ("always", "fit", "resume", "never")


@pytest.fixture(scope="module")
def runner(digits_root, tmp_path_factory):
    """A run of one epoch, whose checkpoint is the good one."""
    work_dir = tmp_path_factory.mktemp("run")
    cfg = tiny_config(digits_root, work_dir, train_cfg__max_epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
        runner = build_runner(cfg)
        runner.register_hook(CheckpointCheckHook())
        runner.train()
    return runner


@pytest.fixture(scope="module")
def files(runner, tmp_path_factory):
    """name -> file, written once."""
    good = torch.load(f"{runner.work_dir}/epoch_1.pth", weights_only=False)
    folder = tmp_path_factory.mktemp("bad")
    (folder / "victim").mkdir()
    (folder / "victim/best_of_all.pth").touch()
    paths = {"good": folder / "good.pth"}
    torch.save(good, paths["good"])
    for name, bad in BAD.items():
        paths[name] = folder / f"{name}.pth"
        bad.write(good, paths[name])
    return paths


@pytest.fixture(autouse=True)
def marker(tmp_path, monkeypatch):
    monkeypatch.setenv(MARKER, str(tmp_path / "marker"))
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, "0")  # importing snclr_mm must do
    yield tmp_path / "marker"
    torch.serialization.clear_safe_globals()


# In this process, with what is built once: seconds for all kinds.


def read(path, runner):
    load_checkpoint(path)


def resume(path, runner):
    runner._resume, runner._load_from = True, str(path)
    runner.resume(str(path))


def load_from(path, runner):
    runner._resume, runner._load_from = False, str(path)
    runner.load_checkpoint(str(path))


def resume_without_our_hook(path, runner):
    hooks = runner._hooks
    runner._hooks = [h for h in hooks if not isinstance(h, CheckpointCheckHook)]
    try:
        resume(path, runner)
    finally:
        runner._hooks = hooks


def pretrained_part(path, runner):
    init_cfg = dict(type="Pretrained", checkpoint=str(path), prefix="backbone.")
    model = BaseModule()
    model.backbone = MODELS.build({**runner.cfg.model.backbone, "init_cfg": init_cfg})
    check_pretrained(model)


def init_cfg(path, runner):
    pretrained = dict(type="Pretrained", checkpoint=str(path))
    MODELS.build({**runner.cfg.model, "init_cfg": pretrained}).init_weights()


def model_by_name(path, runner):
    get_model(Config(dict(model=runner.cfg.model)), pretrained=str(path))


def convert(path, runner):
    out = str(path.with_name("out.pth"))
    load_tool("convert_checkpoint.py").main([str(path), out, "--to", "torchvision"])


WAYS_IN = {  # and the last level that each has to refuse; Python's own only warns
    read: "always",
    resume: "resume",
    load_from: "fit",
    resume_without_our_hook: "always",
    pretrained_part: "always",
    init_cfg: "always",
    model_by_name: "always",
    convert: "always",
}


def attack(way_in, name, path, *arguments, level):
    """Returns what is wrong, or None."""
    refused = BAD[name].refused if name in BAD else "never"
    due = LEVELS.index(refused) <= LEVELS.index(level)
    try:
        way_in(path, *arguments)
    except CLEAR as error:
        if len(str(error)) > 3000 or (due and str(path) not in str(error)):
            return f"does not name the file: {str(error)[:300]}"
        if refused == "never" and way_in is not convert:  # which takes other networks
            return f"refused: {str(error)[:300]}"
    except Exception as error:
        # Without our hook it is MMEngine that meets the content, and says so.
        if due or refused == "never" or way_in is not resume_without_our_hook:
            return f"obscure: {type(error).__name__}: {str(error)[:300]}"
    else:
        return "accepted" if due else None
    return None


def wrong(way_in, names, files, marker, *arguments, level):
    problems = {}
    for name in names:
        problem = attack(way_in, name, files[name], *arguments, level=level)
        if marker.exists():
            marker.unlink()
            problem = "CODE RAN"
        if not (files[name].parent / "victim/best_of_all.pth").exists():
            problem = "DELETED"
        if problem:
            problems[name] = problem
    return problems


def check(way_in, names, files, marker, *arguments, level):
    problems = wrong(way_in, names, files, marker, *arguments, level=level)
    assert not problems, "\n".join(f"{k}: {v}" for k, v in problems.items())


def test_there_are_many_kinds():
    assert len(BAD) >= 90


@pytest.mark.parametrize("way_in", [read, resume])
def test_every_kind(way_in, runner, files, marker):
    check(way_in, files, files, marker, runner, level=WAYS_IN[way_in])


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_some_kinds(way_in, runner, files, marker):
    names = ["good", "cfg_text", *list(BAD)[list(WAYS_IN).index(way_in) :: 15]]
    check(way_in, names, files, marker, runner, level=WAYS_IN[way_in])


@pytest.mark.slow
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_every_kind_in_every_way(way_in, runner, files, marker):
    check(way_in, files, files, marker, runner, level=WAYS_IN[way_in])


def better_comes(runner):
    """What MMEngine does when validation is better than ever."""
    hook = CheckpointHook(save_best="accuracy", rule="greater", max_keep_ckpts=5)
    hook.before_train(runner)
    hook.after_val_epoch(runner, {"accuracy": 99.0})


@pytest.mark.parametrize("way_in", [resume, resume_without_our_hook])
@pytest.mark.parametrize(
    "kind", ["best_is_any_folder", "best_is_any_file", "kept_ones_are_paths"]
)
def test_no_other_checkpoint_is_deleted(kind, way_in, runner, files):
    way_in(files[kind], runner)
    better_comes(runner)
    assert (files[kind].parent / "victim/best_of_all.pth").exists()
    for key in ("best_ckpt", "best_score"):
        runner.message_hub.runtime_info.pop(key)


def test_the_best_checkpoint_of_a_run_is_replaced(runner, files, tmp_path):
    """Also where the work directory was moved since."""
    work_dir = Path(runner.work_dir)
    old = work_dir / "best_accuracy_epoch_0.pth"
    old.touch()
    checkpoint = load_checkpoint(files["good"])
    checkpoint["message_hub"]["runtime_info"].update(
        best_ckpt=f"/moved/{old.name}", best_score=0.0
    )
    torch.save(checkpoint, tmp_path / "epoch_1.pth")
    resume(tmp_path / "epoch_1.pth", runner)
    better_comes(runner)
    assert not old.exists()
    assert len(list(work_dir.glob("best_*"))) == 1


# The tools, whole. `merge` gives all a model as small as the checkpoint's.


def merge(root, work_dir):
    own = {
        "work_dir": work_dir,
        **TINY_BACKBONE,
        "train_dataloader.num_workers": 0,
        "train_dataloader.batch_size": 16,
        "train_dataloader.dataset.indices": 64,
        "test_cfg.bank_dataloader.dataset.indices": 40,
        "test_dataloader.dataset.indices": 40,
    }
    roots = ("train_dataloader", "test_dataloader", "test_cfg.bank_dataloader")
    own |= {f"{loader}.dataset.data_root": root for loader in roots}
    return [f"{key}={value}" for key, value in own.items()]


@pytest.fixture
def tools(digits_root, tmp_path, monkeypatch):
    """name -> (way in, how early it has to refuse)"""
    monkeypatch.chdir(tmp_path)
    root, work_dir = digits_root, tmp_path / "work"
    small = merge(root, work_dir)
    tiny = [*small, *(f"{key}={value}" for key, value in TINY_PRETRAINING.items())]
    head = ["model.head.in_channels=8", "model.backbone.frozen_stages=1"]
    linear = [part for part in small if "neck" not in part and "bank" not in part]

    def train(*options):
        options = [*options, "default_hooks.checkpoint.save_best=None"]
        call("train.py", CONFIG, "--no-validate", *options)

    return {
        "resume": (
            lambda path: train("--resume", path, "--cfg-options", *tiny),
            "resume",
        ),
        "load_from": (
            lambda path: train(
                "--cfg-options", *tiny, f"load_from={path}", "train_cfg.max_epochs=1"
            ),
            "fit",
        ),
        "pretrained": (
            lambda path: call(
                "train.py",
                LINEAR,
                "--no-validate",
                "--pretrained",
                path,
                "--cfg-options",
                *linear,
                *head,
                "train_cfg.max_epochs=1",
            ),
            "always",
        ),
        "test": (
            lambda path: call("test.py", CONFIG, path, "--cfg-options", *tiny),
            "fit",
        ),
        "evaluate": (
            lambda path: call(
                "evaluate.py",
                CONFIG,
                path,
                "--device=cpu",
                "--split=test",
                "--protocols=knn",
                "--knn-k=3",
                "--cfg-options",
                *tiny,
            ),
            "always",
        ),
    }


TOOLS = ("resume", "load_from", "pretrained", "test", "evaluate")


@pytest.mark.parametrize("tool", ["resume", "test"])
def test_tools(tool, tools, files, marker):
    way_in, level = tools[tool]
    check(way_in, ["eval"], files, marker, level=level)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_tools_on_every_kind(tool, tools, files, marker):
    way_in, level = tools[tool]
    check(way_in, files, files, marker, level=level)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_every_kind_with_other_hashes(seed):
    """torch looks names up in a set: what it finds must not depend on its order."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:xdist"]
    cases = f"{__file__}::test_every_kind_in_every_way"
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [*command, cases], env=environment, cwd=REPOSITORY, text=True, stdout=-1
    )
    assert done.returncode == 0, done.stdout[-3000:]
