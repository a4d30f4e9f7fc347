"""Running a config on this machine."""

import inspect
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from unittest.mock import patch

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch.utils.checkpoint import checkpoint

from snclr_mm.checkpoint_safety import explain_refusal, load_checkpoints_safely
from snclr_mm.engine.hooks import CheckpointCheckHook
from snclr_mm.engine.hooks.robust_checkpoint_hook import EXIT_CODE
from snclr_mm.hardware import has_fast_bfloat16

from .config_checks import check_config, explain_build
from .console import quiet_start
from .dataloaders import dataloaders
from .schedules import fit_schedule


@contextmanager
def build_runner(
    cfg: Config, trust_checkpoint: bool = False, training: bool = True
) -> Iterator[Runner]:
    """Build the Runner for this machine, and explain what it refuses to load.

    At the end all ranks wait for each other and close the process group: a rank that
    simply exits may abort, and the launcher then kills rank 0 while it still saves.

    Args:
        cfg (Config): Complete; changed in place.
        trust_checkpoint (bool): See :func:`load_checkpoints_safely`.
        training (bool): False checks no schedules, and leaves the config in the
            work_dir as the training wrote it, by which the run is reported and
            repeated. Defaults to True.

    Raises:
        ValueError: For a setting that cannot be; see :func:`check_config`.
    """
    prepare_torch()
    load_checkpoints_safely(trust=trust_checkpoint)
    check_config(cfg)
    notes = adapt_to_machine(cfg)
    if training:
        notes += fit_schedule(cfg)
    kind = RUNNERS.get(cfg.get("runner_type", "Runner"))
    kept = nullcontext() if training else patch.object(kind, "dump_config")
    with quiet_start(), explain_build(cfg), kept:
        runner = kind.from_cfg(cfg)
    runner.register_hook(CheckpointCheckHook())
    for note in notes:
        runner.logger.warning(note)
    stopped = None
    with explain_refusal(), explain_build(cfg):
        try:
            yield runner
        except SystemExit as error:
            if error.code != EXIT_CODE:
                raise
            stopped = error  # by a signal, on all ranks
    if cfg.get("launcher", "none") != "none":
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if stopped is not None:
        raise stopped


def prepare_torch() -> None:
    """Set torch up: activation checkpoints that work under DDP, two warnings less.

    MMPretrain and MMEngine leave it to torch which kind of checkpoint they use, and
    torch takes the old one. Its backward pass is one of its own for each view, so DDP
    sees each parameter become ready twice, and raises. torch recommends the other.

    And MMPretrain's MNIST reader makes a tensor of read-only bytes, of which torch
    warns: nothing writes to it. MMCV warns of an argument that MMPretrain always gives.
    """
    defaults = inspect.unwrap(checkpoint).__kwdefaults__ or {}
    if defaults.get("use_reentrant", False) is None:
        defaults["use_reentrant"] = False
    for message in ("The given NumPy array is not writable", "Only use 'alpha' for"):
        warnings.filterwarnings("ignore", message=message)


def adapt_to_machine(cfg: Config) -> list[str]:
    """Let a config for GPUs run where there is none, or an old one.

    Without an accelerator: AMP becomes full precision, unless it is bfloat16 and the
    CPU has instructions for it; memory is not pinned; and ``cfg.launcher`` starts a
    gloo group whose ranks wrap the model in CPUDistributedDataParallel, or for FSDP in
    CPUFullyShardedDataParallel, which revert SyncBN. On GPUs that only emulate
    bfloat16, AMP runs in float16. A ``strategy`` without a launcher is dropped on any
    machine; nothing else changes.

    Args:
        cfg (Config): Changed in place; ``cfg.launcher`` must be set.

    Returns:
        list[str]: What was changed, for the log.
    """
    notes = []
    if cfg.get("strategy") and cfg.get("launcher", "none") == "none":
        notes.append(f"One process: strategy.type={cfg.strategy.type} is not used.")
        cfg.strategy = None
    wrapper = cfg.get("optim_wrapper") or {}
    amp = wrapper.get("type") == "AmpOptimWrapper"
    bfloat16 = amp and str(wrapper.get("dtype")) in ("bfloat16", "torch.bfloat16")
    if get_device() != "cpu":
        if wrapper.get("type") == "CPUAmpOptimWrapper":  # saved by a run on a CPU
            wrapper.update(type="AmpOptimWrapper", dtype="bfloat16", loss_scale=1.0)
            notes.append("AMP runs in bfloat16, as it did on a CPU.")
            bfloat16 = True
        if str((cfg.get("model_wrapper_cfg") or {}).get("type")).startswith("CPU"):
            cfg.model_wrapper_cfg = None
        sharding = (cfg.get("strategy") or {}).get("model_wrapper") or {}
        if str(sharding.get("type")).startswith("CPU"):
            sharding.type = sharding.type.replace("CPU", "MM", 1)
            if isinstance(cfg.strategy.get("state_dict_cfg"), dict):
                cfg.strategy.state_dict_cfg = "full"
        bfloat16 &= get_device() == "cuda"
        if bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            # cuDNN emulates no convolutions: they would be done image by image.
            wrapper.update(dtype="float16", loss_scale="dynamic")
            notes.append("AMP runs in float16: this GPU only emulates bfloat16.")
        return notes
    if amp:
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)
        wrapper.type = "OptimWrapper"
        if not bfloat16:
            notes.append("AMP is off: float16 needs an accelerator.")
        elif not has_fast_bfloat16():
            notes.append("AMP is off: no bfloat16 instructions were found.")
        else:
            wrapper.type = "CPUAmpOptimWrapper"
            notes.append("AMP runs in bfloat16 on this CPU.")
    for loader in dataloaders(cfg).values():
        loader.pin_memory = False
    for loop in (cfg.get("val_cfg"), cfg.get("test_cfg")):
        if loop and loop.get("fp16"):
            loop.fp16 = False
            notes.append("Evaluation runs in full precision.")
    if cfg.get("launcher", "none") != "none":
        dist_cfg = (cfg.get("env_cfg") or {}).get("dist_cfg") or {}
        _init_gloo(cfg.launcher, dist_cfg.get("timeout"))
        cfg.model_wrapper_cfg = dict(
            type="CPUDistributedDataParallel",
            find_unused_parameters=cfg.get("find_unused_parameters", False),
        )
        if cfg.get("runner_type") == "FlexibleRunner":
            _adapt_strategy(cfg)
        notes.append(
            "Ranks talk over gloo, and SyncBN is reverted to BatchNorm with per-rank "
            "statistics."
        )
    else:
        notes.append("SyncBN, where the model has it, is reverted to BatchNorm.")
    return ["No accelerator was found, training on the CPU.", *notes]


def _adapt_strategy(cfg: Config) -> None:
    """Do for FlexibleRunner's strategy what ``model_wrapper_cfg`` does for Runner."""
    strategy = cfg.get("strategy") or ConfigDict(type="DDPStrategy")
    if strategy.type.endswith("FSDPStrategy"):
        strategy.setdefault("model_wrapper", {})
        strategy.model_wrapper.type = "CPUFullyShardedDataParallel"
        if strategy.get("state_dict_cfg") == "full":
            # "full" offloads to the CPU, which is no copy here: torch (2.13) then frees
            # the parameters it saves, and saves one moment of Adam as the other.
            keep = dict(rank0_only=True, offload_to_cpu=False)
            strategy.state_dict_cfg = dict(
                state_dict_type="FULL_STATE_DICT",
                state_dict_config=dict(type="FullStateDictConfig", **keep),
                optim_state_dict_config=dict(type="FullOptimStateDictConfig", **keep),
            )
    elif strategy.type == "DDPStrategy":
        strategy.model_wrapper = cfg.model_wrapper_cfg
    else:
        raise ValueError(
            f"strategy.type={strategy.type} needs an accelerator: on CPUs use "
            "ResumableFSDPStrategy or DDPStrategy."
        )
    cfg.strategy = strategy


def _init_gloo(launcher: str, timeout: float | None) -> None:
    if torch.distributed.is_initialized():
        return
    env = os.environ
    if launcher == "slurm":
        env["RANK"] = env["SLURM_PROCID"]
        env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
        env["WORLD_SIZE"] = env["SLURM_NTASKS"]
        env.setdefault("MASTER_PORT", "29500")
        if "MASTER_ADDR" not in env:
            hosts = ["scontrol", "show", "hostnames", env["SLURM_NODELIST"]]
            env["MASTER_ADDR"] = subprocess.check_output(hosts, text=True).split()[0]
    elif launcher != "pytorch":
        raise ValueError(
            f"--launcher {launcher} needs an accelerator: on CPUs use pytorch or slurm."
        )
    limit = {} if timeout is None else dict(timeout=timedelta(seconds=timeout))
    torch.distributed.init_process_group("gloo", **limit)
