import os
import time
from copy import deepcopy

import pytest
import torch
from helpers.ranks import run_on_ranks
from helpers.tiny import REPOSITORY, tiny_config
from mmengine.config import Config

from snclr_mm.cli import adapt_to_machine, build_runner, prepare_torch


@pytest.fixture(autouse=True)
def unchanged_environment(monkeypatch):
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, "0")
    before = torch.serialization.get_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def test_checkpoints_are_not_reentrant_unless_asked_for():
    prepare_torch()
    x = torch.ones(2, requires_grad=True)
    for reentrant, option in ((False, {}), (True, dict(use_reentrant=True))):
        y = torch.utils.checkpoint.checkpoint(torch.exp, x, **option)
        assert ("Checkpoint" in type(y.grad_fn).__name__) == reentrant


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


def test_adapt_to_a_machine_without_accelerator(monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cpu")
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
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cpu")
    monkeypatch.setattr("snclr_mm.cli.machine.has_fast_bfloat16", lambda: fast)
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
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cpu")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("MASTER_ADDR", "node0")
    started = []

    def start(backend, timeout):
        started.append((backend, timeout.total_seconds()))

    monkeypatch.setattr(torch.distributed, "init_process_group", start)
    cfg = Config(dict(launcher="slurm", env_cfg=dict(dist_cfg=dict(timeout=90))))
    adapt_to_machine(cfg)
    assert started == [("gloo", 90)]
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
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cuda")
    headline = REPOSITORY / "configs/snclr_r50_8xb256.py"
    cfg = Config.fromfile(headline if launcher == "none" else fsdp)
    cfg.launcher = launcher
    before = cfg.pretty_text
    assert adapt_to_machine(cfg) == []
    assert cfg.pretty_text == before


@pytest.mark.parametrize("kind", ["Runner", "FlexibleRunner"])
def test_a_test_leaves_the_config_of_the_training(kind, digits_root, tmp_path):
    cfg = tiny_config(digits_root, tmp_path, runner_type=kind)
    for training, count in ((False, 0), (True, 1)):
        cfg.experiment_name = f"{kind}_{training}"
        with build_runner(deepcopy(cfg), training=training):
            assert len([*tmp_path.glob("*.py")]) == count


def test_a_sharded_config_that_a_run_on_cpus_saved(fsdp, monkeypatch):
    cfg = Config.fromfile(fsdp)
    cfg.launcher = "pytorch"
    before = cfg.strategy.to_dict()
    monkeypatch.setattr("snclr_mm.cli.machine._init_gloo", lambda *_: None)
    adapt_to_machine(cfg)
    assert cfg.strategy.model_wrapper.type == "CPUFullyShardedDataParallel"
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cuda")
    adapt_to_machine(cfg)
    assert cfg.strategy.to_dict() == before and cfg.model_wrapper_cfg is None


def test_a_config_that_a_run_on_a_cpu_saved(monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.machine.has_fast_bfloat16", lambda: True)
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r18_1xb128_image-folder.py")
    cfg.launcher = "none"
    before = dict(cfg.optim_wrapper)
    adapt_to_machine(cfg)
    assert cfg.optim_wrapper.type == "CPUAmpOptimWrapper"
    cfg.model_wrapper_cfg = dict(type="CPUDistributedDataParallel")
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert adapt_to_machine(cfg) == ["AMP runs in bfloat16, as it did on a CPU."]
    assert dict(cfg.optim_wrapper) == before
    assert cfg.model_wrapper_cfg is None


@pytest.mark.parametrize("emulated", [False, True])
def test_no_bfloat16_on_a_gpu_that_emulates_it(emulated, monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cuda")
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or not emulated,
    )
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r18_1xb128_image-folder.py")
    cfg.launcher = "none"
    notes = adapt_to_machine(cfg)
    wrapper = cfg.optim_wrapper
    assert wrapper.type == "AmpOptimWrapper"
    if emulated:
        assert (wrapper.dtype, wrapper.loss_scale) == ("float16", "dynamic")
        assert "float16: this GPU only emulates bfloat16" in notes[0]
    else:
        assert (wrapper.dtype, wrapper.loss_scale, notes) == ("bfloat16", 1.0, [])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_process_needs_no_strategy(device, fsdp, monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: device)
    cfg = Config.fromfile(fsdp)
    cfg.launcher = "none"
    note = "One process: strategy.type=ResumableFSDPStrategy is not used."
    assert note in adapt_to_machine(cfg)
    assert cfg.strategy is None


def test_strategies_without_accelerator(fsdp, monkeypatch):
    monkeypatch.setattr("snclr_mm.cli.machine.get_device", lambda: "cpu")
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
