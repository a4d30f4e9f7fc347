"""What users do, on tensors that refuse what a GPU's would refuse."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from helpers.fake_gpu import FakeGPUTensor, fake_gpu
from helpers.tiny import REPOSITORY, TINY_BACKBONE, TINY_PRETRAINING, build_runner
from mmengine.config import Config

from snclr_mm.cli import dataloaders
from snclr_mm.evaluation import build_splits, extract_features
from snclr_mm.evaluation.protocols import PROTOCOLS, ProtocolSettings, run_protocol
from snclr_mm.visualization import extract_keys, find_neighbors, map_features

HOOKS = [
    dict(type="NeighborQueueHook"),
    dict(type="NeighborPurityHook", interval=2),
    dict(type="NeighborAgeHook", interval=2),
    dict(type="PositivenessEntropyHook", interval=2),
    dict(type="CollapseHook", interval=2),
    dict(type="OnlineKNNHook", k=5),
    dict(type="OnlineLinearProbeHook"),
    dict(type="NeighborImagesHook", num_images=20),
]


def config(data_root, work_dir, epochs, **options):
    """The demo's, shrunk, in full precision, with every hook."""
    demo = "configs/snclr_resnet-tiny_1xb128-gpu-aug-30e_fashion-mnist.py"
    cfg = Config.fromfile(REPOSITORY / demo)
    cfg.optim_wrapper = dict(optimizer=cfg.optim_wrapper.optimizer)
    cfg.custom_hooks = HOOKS
    for loader in dataloaders(cfg, ("train", "val")).values():
        loader.update(batch_size=32, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(data_root), indices=96)
    cfg.merge_from_dict(
        {
            **TINY_BACKBONE,
            **TINY_PRETRAINING,
            "work_dir": str(work_dir),
            "launcher": "none",
            "train_cfg.max_epochs": epochs,
            "train_cfg.val_interval": 1,
            "default_hooks.checkpoint.interval": 1,
            "default_hooks.logger.interval": 2,
            "test_cfg": None,
            "test_dataloader": None,
            "test_evaluator": None,
            **options,
        }
    )
    return cfg


def test_refuses_what_a_gpu_refuses():
    with fake_gpu() as waits:
        a = torch.ones(3).to("cuda")
        assert a.device.type == "cuda" and (a + 1).is_cuda
        assert isinstance(a * torch.ones((), device="cuda"), FakeGPUTensor)
        with pytest.raises(RuntimeError, match="both devices"):
            a + torch.ones(3)
        with pytest.raises(RuntimeError, match="index"):
            torch.ones(3)[a.long()]
        with pytest.raises(RuntimeError, match="index"):
            torch.ones(3)[a.long()] = 1
        with pytest.raises(TypeError, match="NumPy"):
            np.asarray(a)
        assert not waits
        assert a.sum().item() == 3
        assert type(a.cpu()) is torch.Tensor
    assert [what for what, _ in waits] == ["item", "cpu"]


def test_training_and_resuming(digits_root, tmp_path):
    """Forward, queue, validation, diagnostics, checkpoints, and the same once more."""
    for epochs, resume in ((1, False), (2, True)):
        with fake_gpu() as waits:
            runner = build_runner(config(digits_root, tmp_path, epochs, resume=resume))
            assert runner.model.head.queue.features.is_cuda
            runner.train()
        assert runner.iter == 3 * epochs
        assert runner.message_hub.get_scalar("train/diagnostics/neighbor_purity")
        assert runner.message_hub.get_scalar("val/knn/top1").current() > 0
        # Also after resuming the optimizer waits for nothing.
        assert not [where for _, where in waits if "optim" in where.rpartition("/")[0]]
    saved = torch.load(tmp_path / "epoch_2.pth", weights_only=False)
    assert type(saved["state_dict"]["head.queue.features"]) is torch.Tensor


def test_a_step_waits_for_one_flag_and_for_what_is_logged(digits_root, tmp_path):
    with fake_gpu() as waits:
        cfg = config(digits_root, tmp_path, 4, **{"train_cfg.val_interval": 10})
        cfg.custom_hooks = HOOKS[:1]
        runner = build_runner(cfg)
        runner.train()
    counts = defaultdict(int)
    for (what, where), count in waits.items():
        if what != "cpu":  # initialization and checkpoints
            counts[where.partition(":")[0]] += count
    del counts["logging/message_hub.py"]
    assert counts.pop("hooks/step_guard_hook.py") == runner.iter == 12
    assert counts.pop("hooks/exact_resume_hook.py") == 1  # before the first step
    # The one validation, at the end.
    assert set(counts) == {"evaluation/features.py", "runners/knn_loop.py"}


def test_evaluation_and_pictures(digits_root, tmp_path):
    settings = ProtocolSettings(
        knn_k=[5], per_class=[1, 5], draws=2, percent=[20], shots=[2]
    )
    with fake_gpu() as waits:
        runner = build_runner(config(digits_root, tmp_path, 1))
        train, test = (list(s.dataloader) for s in build_splits(runner.cfg))
        pair = [extract_features(runner.model, batches) for batches in (train, test)]
        assert all(tensor.is_cuda for part in pair for tensor in part)
        assert not [what for what, _ in waits if what == "cpu"]  # image by image
        for protocol in PROTOCOLS:
            assert run_protocol(protocol, *pair, settings)
        found = find_neighbors(runner.model.eval(), train)
        assert found.index.numpy().shape[0] == 96
        assert map_features(extract_keys(runner.model, test)).shape[1] == 2
