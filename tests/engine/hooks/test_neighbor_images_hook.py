"""Neighbor images and scalars in each logging backend, read back."""

import io
import re
import struct

import numpy as np
import pytest
import torch
from helpers.tiny import build_runner, tiny_config
from PIL import Image

from snclr_mm.engine import NeighborImagesHook

PURITY = "diagnostics/neighbor_purity"
STEPS = [4, 8]  # iterations after each of the two epochs


def train(data_root, work_dir, backend=None, hook=None, before=None, val_images=None):
    """Two epochs on digits, with neighbor images of 30 of them after each."""
    cfg = tiny_config(data_root, work_dir)
    cfg.custom_hooks = [
        dict(type="NeighborQueueHook"),
        dict(type="NeighborPurityHook", interval=1),
        hook or dict(type="NeighborImagesHook", num_images=30),
    ]
    if backend:
        cfg.visualizer.vis_backends = [dict(type="LocalVisBackend"), backend]
    runner = build_runner(cfg)
    if val_images:
        runner.cfg.val_dataloader = val_images
    if before:
        before(runner)
    runner.train()
    return runner


def check(pictures, purity, runner):
    """Two different pictures of real size, and the last value that was logged."""
    first, second = (np.asarray(picture) for picture in pictures)
    assert first.shape[0] > 500 and first.shape[1] > 500 and first.std() > 10
    assert first.shape != second.shape or np.abs(first - second.astype(int)).max() > 50
    expected = runner.message_hub.get_scalar(f"train/{PURITY}").current()
    assert purity == pytest.approx(expected, abs=1e-6) and expected > 0


def test_tensorboard(digits_root, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runner = train(digits_root, tmp_path, dict(type="TensorboardVisBackend"))
    (file,) = tmp_path.glob("*/vis_data/events.out.*")
    events = EventAccumulator(str(file)).Reload()
    images = events.Images("neighbors")
    assert [image.step for image in images] == STEPS
    pictures = [Image.open(io.BytesIO(i.encoded_image_string)) for i in images]
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    check(pictures, events.Scalars(PURITY)[-1].value, runner)


def wandb_history(file):
    """What was logged to an offline run, in LevelDB's format of logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record, rows = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 0x8000 - place % 0x8000 < 7:  # the rest of a block is empty
            place += 0x8000 - place % 0x8000
        length, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            items = Record.FromString(record).history.item
            rows.append({i.key or "/".join(i.nested_key): i.value_json for i in items})
            record = b""
    return rows


@pytest.mark.slow
def test_wandb(digits_root, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    backend = dict(type="WandbVisBackend", init_kwargs=dict(project="snclr"))
    runner = train(digits_root, tmp_path, backend)
    wandb.teardown()  # its own process has written the file by now
    (file,) = tmp_path.rglob("*.wandb")
    history = wandb_history(file)
    steps = [int(row["iter"]) for row in history if "iter" in row]
    assert steps == list(range(1, 9))
    purity = [float(row[PURITY]) for row in history if PURITY in row]
    pictures = sorted(tmp_path.rglob("media/images/neighbors_*.png"))
    pictures.sort(key=lambda path: int(path.name.split("_")[1]))
    check([Image.open(path) for path in pictures], purity[-1], runner)


@pytest.mark.slow
def test_mlflow(digits_root, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    backend = dict(type="MLflowVisBackend", exp_name="snclr", tracking_uri=uri)
    runner = train(digits_root, tmp_path, backend)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("snclr")
    (run,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in losses] == list(range(1, 9))
    names = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    pictures = []
    for step in STEPS:
        pattern = rf"images/neighbors.step.{step}.timestamp.*\.png"
        (name,) = [name for name in names if re.fullmatch(pattern, name)]
        uri = f"{run.info.artifact_uri}/{name}"
        pictures.append(Image.open(mlflow.artifacts.download_artifacts(uri)))
    check(pictures, run.data.metrics[PURITY], runner)


def test_training_is_the_same_to_the_bit(digits_root, tmp_path):
    """And the pictures are files, where no other backend is configured."""
    states = []
    for name, hook in (("with", None), ("without", dict(type="NeighborAgeHook"))):
        runner = train(digits_root, tmp_path / name, hook=hook)
        states.append((runner.model.state_dict(), torch.get_rng_state()))
    torch.testing.assert_close(*states, rtol=0, atol=0)
    files = (tmp_path / "with").rglob("vis_image/*.png")
    assert sorted(f.name for f in files) == [f"neighbors_{s}.png" for s in STEPS]


def test_labels_are_not_needed(digits_root, image_folder, tmp_path):
    cfg = tiny_config(digits_root, tmp_path)
    dataset = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type="ImageFolder", data_root=str(image_folder), pipeline=dataset.pipeline
    )
    cfg.train_cfg.max_epochs = 1
    cfg.custom_hooks = [
        dict(type="NeighborQueueHook"),
        dict(type="NeighborImagesHook", num_images=5),
    ]
    build_runner(cfg).train()
    (file,) = tmp_path.rglob("vis_image/*.png")
    assert file.stat().st_size > 10_000


def test_bad_settings(digits_root, tmp_path):
    with pytest.raises(ValueError, match=r"NeighborImagesHook.interval=0 must be"):
        NeighborImagesHook(interval=0)
    with pytest.raises(ValueError, match=r"num_images=1 must be an int of at least 2"):
        NeighborImagesHook(num_images=1)


def test_loops_without_epochs(digits_root, tmp_path):
    cfg = tiny_config(digits_root, tmp_path)
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2)
    cfg.param_scheduler = []
    cfg.custom_hooks.append(dict(type="NeighborImagesHook"))
    with pytest.raises(ValueError, match="NeighborImagesHook .* IterBasedTrainLoop "):
        build_runner(cfg).train()


def test_one_image_has_no_neighbors(digits_root, tmp_path):
    dataset = dict(
        type="FashionMNIST",
        data_root=str(digits_root),
        split="test",
        test_mode=True,
        indices=1,
        pipeline=[dict(type="LoadImage"), dict(type="PackInputs")],
    )
    with pytest.raises(ValueError, match="1 of the 1 images of val_dataloader.dataset"):
        train(digits_root, tmp_path, val_images=dict(dataset=dataset))


def test_training_goes_on_where_features_are_not_finite(digits_root, tmp_path):
    def spoil(module, args, output):
        if not module.training:
            return tuple(part * torch.nan for part in output)

    def before(runner):
        runner.model.momentum_encoder.register_forward_hook(spoil)

    runner = train(digits_root, tmp_path, before=before)
    assert runner.iter == 8
    (log,) = tmp_path.glob("*/*.log")
    assert "no picture was drawn: 30 of 30 features" in log.read_text()
    assert not list(tmp_path.rglob("vis_image/*.png"))
