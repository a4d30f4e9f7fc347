import argparse
import os
import pickle
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from helpers.ranks import run_on_ranks
from helpers.tiny import CONFIG, REPOSITORY, tiny_config
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from snclr_mm.cli import (
    adapt_to_machine,
    build_runner,
    check_data_roots,
    find_config,
    load_checkpoints_safely,
    load_config,
    set_dataloader_defaults,
)


@pytest.fixture(autouse=True)
def unchanged_environment(monkeypatch):
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, "0")
    yield
    torch.serialization.clear_safe_globals()


class Malicious:
    def __reduce__(self):
        return (os.mkdir, (Malicious.target,))


def test_checkpoints_with_code_are_refused_unless_trusted(tmp_path):
    Malicious.target = str(tmp_path / "hacked")
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": Malicious()}, path)
    load_checkpoints_safely()
    from mmengine.runner import load_checkpoint

    # MMEngine would retry without restrictions.
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(torch.nn.Linear(1, 1), str(path))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not (tmp_path / "hacked").exists()
    load_checkpoints_safely(trust=True)
    torch.load(path)
    assert (tmp_path / "hacked").exists()


def test_getattr_is_restricted_to_history_buffers(tmp_path):
    class Attack:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, "__init__"))

    torch.save(Attack(), tmp_path / "bad.pth")
    load_checkpoints_safely()
    with pytest.raises((pickle.UnpicklingError, ValueError), match="getattr|__init__"):
        torch.load(tmp_path / "bad.pth")


def test_what_mmengine_saves_is_loaded(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    data = {"hub": buffer, "number": np.float64(3), "array": np.arange(3)}
    torch.save(data, tmp_path / "good.pth")
    load_checkpoints_safely()
    CheckpointLoader.load_checkpoint(str(tmp_path / "good.pth"))
    loaded = torch.load(tmp_path / "good.pth")  # also after MMEngine's own loading
    assert loaded["hub"].mean() == 1.5
    assert loaded["number"] == 3
    assert loaded["array"].tolist() == [0, 1, 2]


def test_numbers_pickled_by_another_numpy_are_loaded(tmp_path):
    torch.save({"number": np.float64(3)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new:
        names = {info: new.read(info) for info in new.namelist()}
    with zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name, data in names.items():
            swap = (b"numpy._core.", b"numpy.core.")
            old.writestr(name, data.replace(*(swap if swap[0] in data else swap[::-1])))
    load_checkpoints_safely()
    for name in ("new", "old"):
        assert torch.load(tmp_path / f"{name}.pth")["number"] == 3


def leave_early(rank, data_root, work_dir):
    cfg = tiny_config(data_root, work_dir / str(rank))
    cfg.launcher = "pytorch"
    os.environ["LOCAL_RANK"] = str(rank)
    saved = work_dir / "saved"
    with build_runner(cfg):
        if rank == 0:
            time.sleep(0.5)  # rank 0 alone writes the checkpoint
            saved.touch()
    return saved.exists(), torch.distributed.is_initialized()


def test_no_rank_leaves_before_the_others(digits_root, tmp_path):
    results = run_on_ranks(2, leave_early, digits_root, tmp_path)
    assert results == [(True, False)] * 2


def test_configs_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = str(CONFIG.relative_to(REPOSITORY))
    assert find_config(relative) == str(CONFIG)
    (tmp_path / "own.py").write_text("")
    assert find_config("own.py") == "own.py"
    with pytest.raises(
        FileNotFoundError, match=rf"'none.py'.*{tmp_path}.*{REPOSITORY}"
    ):
        find_config("none.py")


def test_missing_data_folders(tmp_path):
    cfg = Config.fromfile(CONFIG)
    with pytest.raises(
        FileNotFoundError,
        match=r"train_dataloader\.dataset\.data_root='data/.*--cfg-options train_data.*"
        r"prepare_fashion_mnist",
    ):
        cfg.train_dataloader.dataset.data_root = "data/none"
        check_data_roots(cfg)
    cfg.train_dataloader.dataset.data_root = str(tmp_path)
    cfg.val_dataloader.dataset.data_root = str(tmp_path)
    cfg.val_cfg.bank_dataloader.dataset.data_root = "none"
    with pytest.raises(FileNotFoundError, match=r"val_cfg\.bank_dataloader.*--no-vali"):
        check_data_roots(cfg)
    check_data_roots(cfg, stages=["train"])


def test_missing_annotations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(
                    type="RepeatDataset",
                    dataset=dict(
                        data_root=str(tmp_path),
                        ann_file="a.json",
                        data_prefix=dict(img="train"),
                    ),
                )
            )
        )
    )
    key = r"train_dataloader\.dataset\.dataset\."
    with pytest.raises(
        FileNotFoundError, match=rf"{key}ann_file='a.json' .* in data_root '{tmp_path}'"
    ):
        check_data_roots(cfg)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=rf"{key}data_prefix\.img='train' does"):
        check_data_roots(cfg)
    (tmp_path / "train").mkdir()
    check_data_roots(cfg)
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.data_root = "s3://bucket/coco/"
    check_data_roots(cfg)
    dataset.data_root = "data/tree-crowns/"
    with pytest.raises(
        FileNotFoundError,
        match=rf"{key}data_root='data/tree-crowns/' does not exist \(working.*"
        r"prepare_tree_crowns\.py data/tree-crowns$",
    ):
        check_data_roots(cfg)


@pytest.mark.parametrize("missing", ["mmdet", "mmcv.ops"])
def test_missing_downstream_libraries(missing, tmp_path, monkeypatch):
    config = tmp_path / "a.py"
    config.write_text("default_scope = 'mmdet'\n")
    if missing == "mmdet":
        config.write_text("_base_ = 'mmdet::_base_/default_runtime.py'\n")
        monkeypatch.setattr("mmengine.config.config.is_installed", lambda _: False)
    else:
        monkeypatch.setitem(sys.modules, "mmcv.ops", None)
    args = argparse.Namespace(
        config=str(config), launcher="none", local_rank=0, work_dir=None
    )
    with pytest.raises(SystemExit, match=r"a\.py needs.*(?s:.*)\[downstream\]"):
        load_config(args)


def test_adapt_to_a_machine_without_accelerator(monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.launch.get_device", lambda: "cpu")
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r50_8xb256.py")
    cfg.launcher = "none"
    cfg.test_cfg.fp16 = True
    optimizer = cfg.optim_wrapper.optimizer
    notes = adapt_to_machine(cfg)
    assert cfg.optim_wrapper.type == "OptimWrapper"
    assert "loss_scale" not in cfg.optim_wrapper
    assert not cfg.val_cfg.bank_dataloader.pin_memory
    assert not cfg.test_cfg.fp16
    assert cfg.optim_wrapper.optimizer == optimizer
    assert not cfg.train_dataloader.pin_memory
    text = " ".join(notes)
    assert "AMP is off" in text and "SyncBN" in text and "CPU" in text
    cfg.launcher = "mpi"
    with pytest.raises(ValueError, match="--launcher mpi"):
        adapt_to_machine(cfg)


@pytest.mark.parametrize(
    ("dtype", "fast", "expected", "note"),
    [
        ("bfloat16", True, "CPUAmpOptimWrapper", "AMP runs in bfloat16 on this CPU"),
        ("bfloat16", False, "OptimWrapper", "AMP is off: no bfloat16 instructions"),
        ("float16", True, "OptimWrapper", "AMP is off: float16 needs an accelerator"),
        (None, True, "OptimWrapper", "AMP is off: float16 needs an accelerator"),
    ],
)
def test_amp_without_accelerator(dtype, fast, expected, note, monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.launch.get_device", lambda: "cpu")
    monkeypatch.setattr("snclr_mm.cli.launch.has_fast_bfloat16", lambda: fast)
    wrapper = dict(
        type="AmpOptimWrapper",
        loss_scale=1.0,
        optimizer=dict(type="SGD", lr=0.1),
        accumulative_counts=2,
    )
    if dtype:
        wrapper["dtype"] = dtype
    cfg = Config(dict(optim_wrapper=wrapper, launcher="none"))
    assert note in " ".join(adapt_to_machine(cfg))
    assert cfg.optim_wrapper == dict(
        type=expected, optimizer=dict(type="SGD", lr=0.1), accumulative_counts=2
    )


def test_slurm_variables_are_understood(monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.launch.get_device", lambda: "cpu")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("MASTER_ADDR", "node0")
    started = []
    monkeypatch.setattr(torch.distributed, "init_process_group", started.append)
    cfg = Config(dict(launcher="slurm"))
    adapt_to_machine(cfg)
    assert started == ["gloo"]
    values = [
        os.environ[n] for n in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
    ]
    assert values == ["5", "1", "8", "29500"]
    assert cfg.model_wrapper_cfg.type == "CPUDistributedDataParallel"


@pytest.fixture
def fsdp(tmp_path):
    """ViT-B with the variant, as docs/recipes.md combines them."""
    path = tmp_path / "fsdp.py"
    configs = REPOSITORY / "configs"
    path.write_text(
        f'_base_ = ["{configs}/imagenet/snclr_vit-base-p16_8xb512-300e_in1k.py",\n'
        f'"{configs}/_base_/variants/fsdp.py"]\n'
        "optim_wrapper = dict(optimizer=dict(fused=False))\n"
    )
    return path


@pytest.mark.parametrize("launcher", ["none", "pytorch"])
def test_adapt_changes_nothing_with_an_accelerator(launcher, fsdp, monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.launch.get_device", lambda: "cuda")
    headline = REPOSITORY / "configs/snclr_r50_8xb256.py"
    cfg = Config.fromfile(headline if launcher == "none" else fsdp)
    cfg.launcher = launcher
    before = cfg.pretty_text
    assert adapt_to_machine(cfg) == []
    assert cfg.pretty_text == before


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_process_needs_no_strategy(device, fsdp, monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.launch.get_device", lambda: device)
    cfg = Config.fromfile(fsdp)
    cfg.launcher = "none"
    note = "One process: strategy.type=ResumableFSDPStrategy is not used."
    assert note in adapt_to_machine(cfg)
    assert cfg.strategy is None


def test_strategies_without_accelerator(fsdp, monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.launch.get_device", lambda: "cpu")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    cfg = Config.fromfile(fsdp)
    cfg.launcher = "pytorch"
    wrapper = dict(cfg.strategy.model_wrapper, type="CPUFullyShardedDataParallel")
    adapt_to_machine(cfg)
    assert cfg.strategy.model_wrapper == wrapper
    for kind in ("state_dict_config", "optim_state_dict_config"):
        assert not cfg.strategy.state_dict_cfg[kind].offload_to_cpu
    cfg = Config(dict(runner_type="FlexibleRunner", launcher="pytorch"))
    adapt_to_machine(cfg)
    assert cfg.strategy.type == "DDPStrategy"
    assert cfg.strategy.model_wrapper.type == "CPUDistributedDataParallel"
    cfg.strategy.type = "DeepSpeedStrategy"
    with pytest.raises(
        ValueError, match="strategy.type=DeepSpeedStrategy needs an acc"
    ):
        adapt_to_machine(cfg)


def test_dataloader_defaults():
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=2),
            val_dataloader=dict(num_workers=0, persistent_workers=True),
        )
    )
    set_dataloader_defaults(cfg, pin_memory=None, persistent_workers=None)
    assert cfg.train_dataloader.pin_memory
    assert cfg.train_dataloader.persistent_workers
    assert cfg.train_dataloader.collate_fn.type == "default_collate"
    assert not cfg.val_dataloader.persistent_workers
    set_dataloader_defaults(cfg, pin_memory=False, persistent_workers=False)
    assert not cfg.train_dataloader.pin_memory
    assert not cfg.train_dataloader.persistent_workers
