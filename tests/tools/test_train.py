import json
import re
import sys
from pathlib import Path

import mmpretrain
import pytest
import torch
from helpers.command import SMALL_PICTURES, call, run, tool
from helpers.tiny import CONFIG

# MMPretrain's own tools and configs, as its wheel ships them.
MIM = Path(mmpretrain.__file__).parent / ".mim"
# Shrinks the small config to seconds.
SMALL = [
    "train_dataloader.batch_size=8",
    "train_dataloader.num_workers=0",
    "model.head.queue.length=40",
    "model.head.num_neighbors=3",
    "default_hooks.logger.interval=1",
    "default_hooks.checkpoint.interval=1",
]


def losses(output):
    return [float(x) for x in re.findall(r" loss: ([\d.naif]+)", output)]


def test_headline_config_on_two_cpu_processes(image_folder, tmp_path):
    output = tool(
        "dist_train.sh",
        "configs/snclr_r50_8xb256.py",
        2,
        "--no-validate",
        "--cfg-options",
        f"train_dataloader.dataset.data_root={image_folder}",
        "train_dataloader.batch_size=4",
        *SMALL_PICTURES,
        "default_hooks.logger.interval=1",
        "optim_wrapper.optimizer.lr=0.1",
        cwd=tmp_path,
    )
    assert "AMP is off" in output
    assert "SyncBN is reverted" in output
    assert "Ranks talk over gloo" in output
    values = losses(output)
    assert len(values) == 6  # 48 images, 2 x 4 per step
    assert torch.tensor(values).isfinite().all()
    fill = [float(x) for x in re.findall(r"queue_fill: ([\d.]+)", output)]
    # Both views of both ranks' images: 16 of 50 rows per step.
    assert fill == pytest.approx([0, 0.32, 0.64, 0.96, 1, 1])
    assert "positiveness_max" in output
    path = tmp_path / "work_dirs/snclr_r50_8xb256/epoch_1.pth"
    state = torch.load(path, weights_only=False)["state_dict"]
    assert state["head.queue.count"] == 96
    assert state["backbone.conv1.weight"].isfinite().all()


def test_own_images_resume_and_test(
    image_folder, digits_root, tmp_path, monkeypatch, capfd
):
    """The small config on a folder of images, interrupted, resumed and evaluated."""
    own = [
        "--no-validate",
        "--cfg-options",
        "train_dataloader.dataset.type=ImageFolder",
        f"train_dataloader.dataset.data_root={image_folder}",
        *SMALL,
    ]
    monkeypatch.chdir(tmp_path)
    options = ["--amp", "--auto-scale-lr", *own, "train_cfg.max_epochs=1"]
    call("train.py", CONFIG, *options)
    output = "".join(capfd.readouterr())
    assert len(losses(output)) == 6
    assert "batch size of 128 and the current batch size is 8" in output
    note = re.search("AMP (is off|runs in bfloat16)", output)
    assert note or torch.cuda.is_available()
    assert "No accelerator was found" in output or torch.cuda.is_available()
    work_dir = tmp_path / f"work_dirs/{CONFIG.stem}"
    call("train.py", CONFIG, "--resume", *own, "train_cfg.max_epochs=2")
    output = "".join(capfd.readouterr())
    assert "resumed epoch: 1, iter: 6" in output
    assert len(losses(output)) == 6
    state = torch.load(work_dir / "epoch_2.pth", weights_only=False)["state_dict"]
    assert state["head.queue.count"] == 2 * 2 * 48

    options = []
    for loader in ("test_dataloader", "test_cfg.bank_dataloader"):
        options.append(f"{loader}.dataset.data_root={digits_root}")
        options.append(f"{loader}.dataset.indices=100")
    tool(
        "dist_test.sh",
        CONFIG,
        work_dir / "epoch_2.pth",
        2,
        "--out=metrics.json",
        "--cfg-options",
        "model.head.queue.length=40",
        "model.head.num_neighbors=3",
        *options,
        cwd=tmp_path,
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 10 < metrics["knn/top1"] <= 100


def test_stock_config_imports_the_plugin_by_custom_imports(image_folder, tmp_path):
    """MMPretrain's own tool and config, with our head: nothing else imports us."""
    config = tmp_path / "mocov3_soft-neighbors.py"
    config.write_text(
        f"""
_base_ = "{MIM}/configs/mocov3/mocov3_resnet50_8xb512-amp-coslr-100e_in1k.py"
custom_imports = dict(imports=["snclr_mm"])
custom_hooks = [dict(type="NeighborQueueHook")]
model = dict(
    backbone=dict(depth=18, norm_cfg=dict(type="BN"), base_channels=8, stem_channels=8),
    neck=dict(in_channels=64, hid_channels=16, norm_cfg=dict(type="BN1d")),
    head=dict(
        _delete_=True,
        type="SoftNeighborHead",
        predictor=dict(
            type="NonLinearNeck", in_channels=256, hid_channels=16, out_channels=256,
            with_avg_pool=False, norm_cfg=dict(type="BN1d"),
        ),
        queue=dict(type="NeighborQueue", length=64, dim=256),
        num_neighbors=3,
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, type="CustomDataset", with_label=False,
        data_root="{image_folder}",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="MultiView", num_views=2, transforms=[
                [dict(type="RandomResizedCrop", scale=32)]]),
            dict(type="PackInputs"),
        ]),
)
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(_delete_=True, optimizer=dict(type="SGD", lr=0.1))
param_scheduler = []
default_hooks = dict(logger=dict(interval=1))
"""
    )
    output = run(sys.executable, MIM / "tools/train.py", config, cwd=tmp_path)
    assert len(losses(output)) == 6
    assert "queue_fill" in output and "neighbor_similarity" in output


def test_errors_are_clear(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = "train_dataloader.dataset.data_root='data/fashion-mnist'"
    with pytest.raises(FileNotFoundError, match=f"{root} does not"):
        call("train.py", CONFIG, "--no-validate")
    broken = tmp_path / "images"
    broken.mkdir()
    for i in range(16):
        (broken / f"{i}.jpg").write_bytes(b"no image")
    options = [
        "train_dataloader.dataset.type=ImageFolder",
        f"train_dataloader.dataset.data_root={broken}",
        *SMALL,
    ]
    with pytest.raises(Exception, match=rf"image '{broken}/\d+\.jpg' can't be read"):
        call("train.py", CONFIG, "--no-validate", "--cfg-options", *options)


def test_unsafe_checkpoint_is_refused(digits_root, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    class Code:
        def __reduce__(self):
            return (print, ("code ran",))

    path = tmp_path / "bad.pth"
    torch.save({"state_dict": {}, "meta": Code()}, path)
    options = [
        f"{loader}.dataset.data_root={digits_root}"
        for loader in ("test_dataloader", "test_cfg.bank_dataloader")
    ]
    with pytest.raises(SystemExit, match="trust its source, pass --trust-checkpoint"):
        call("test.py", CONFIG, path, "--cfg-options", *options)
    assert "code ran" not in "".join(capfd.readouterr())
