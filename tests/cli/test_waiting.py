"""Nothing waits for ever: not for a rank, and not for a data worker."""

import time

import pytest
import torch
from helpers.tiny import build_runner, tiny_config
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from snclr_mm.cli.dataloaders import WORKER_TIMEOUT, set_dataloader_defaults


@TRANSFORMS.register_module(force=True)
class Hang(BaseTransform):
    """A file system that does not answer."""

    def transform(self, results):
        time.sleep(60)
        return results


def test_a_rank_that_never_comes(digits_root, tmp_path, monkeypatch):
    cfg = tiny_config(digits_root, tmp_path, launcher="pytorch")
    assert cfg.env_cfg.dist_cfg.timeout == 600
    cfg.env_cfg.dist_cfg.timeout = 2
    for name, value in dict(
        RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    ).items():  # fmt: skip
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    with pytest.raises(torch.distributed.DistError, match=r"[Tt]imed out|clients join"):
        build_runner(cfg)
    assert time.monotonic() - started < 30


def test_a_worker_that_hangs(digits_root, tmp_path):
    cfg = tiny_config(digits_root, tmp_path, train_dataloader__num_workers=1)
    set_dataloader_defaults(cfg)
    assert cfg.train_dataloader.timeout == WORKER_TIMEOUT
    cfg.train_dataloader.timeout = 2
    cfg.train_dataloader.persistent_workers = False
    cfg.train_dataloader.dataset.pipeline.insert(0, dict(type="Hang"))
    with pytest.raises(RuntimeError, match="timed out after 2 seconds"):
        build_runner(cfg).train()
