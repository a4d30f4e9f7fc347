import hashlib
import json

import pytest
import torch
from helpers.tiny import REPOSITORY, tiny_config
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from snclr_mm import embed
from snclr_mm.checkpoint_safety import CheckpointError
from snclr_mm.checkpoints import convert_checkpoint
from snclr_mm.checkpoints.saved_model import load_model
from snclr_mm.evaluation.features import batch_features


@pytest.fixture
def saved(tmp_path):
    """A config, a checkpoint of random weights, and its model."""
    cfg = tiny_config("", tmp_path)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    config, checkpoint = tmp_path / "tiny.py", tmp_path / "epoch_1.pth"
    cfg.dump(config)
    model = MODELS.build(cfg.model).eval()
    meta = {"cfg": cfg.pretty_text}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, checkpoint)
    return config, checkpoint, model


def test_the_config_is_in_the_file(saved):
    config, checkpoint, model = saved
    for source in (None, str(config)):
        loaded, cfg = load_model(str(checkpoint), source)
        assert not loaded.training and cfg.model.type == "SNCLR"
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("name", ["mmpretrain.pth", "safetensors.safetensors"])
def test_a_backbone_alone(saved, tmp_path, image_folder, name):
    config, checkpoint, model = saved
    path = str(tmp_path / name)
    convert_checkpoint(checkpoint, path, name.partition(".")[0])
    loaded, _ = load_model(path, str(config))
    batch = {
        "inputs": torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8),
        "data_samples": [],
    }
    with torch.no_grad():
        found, expected = (batch_features(m, batch)[0] for m in (loaded, model))
    assert torch.equal(found, expected) and found.std() > 0
    found = embed(image_folder, path, config=str(config))
    assert torch.equal(found, embed(image_folder, str(checkpoint)))
    parts = {name for name, part in loaded.named_children() if part is not None}
    assert parts == {"backbone", "data_preprocessor"}
    with pytest.raises(ValueError, match="holds no config .* give the file"):
        load_model(path)
    other = f"{REPOSITORY}/configs/snclr_r50_8xb256.py"
    with pytest.raises(ValueError, match="is not a checkpoint of .* of another shape"):
        load_model(path, other)


def test_safetensors_wherever_mmengine_loads(saved, tmp_path):
    _, _, model = saved
    backbone = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    good, bad = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({k: v.contiguous() + 1 for k, v in backbone.items()}, good)
    load_checkpoint(model, str(good))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, backbone[name] + 1), name
    bad.write_bytes(good.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="b.safetensors is no safetensors file"):
        load_checkpoint(model, str(bad))
    nan = {k: v * torch.nan for k, v in backbone.items() if v.is_floating_point()}
    save_file(nan, bad)
    with pytest.raises(CheckpointError, match="b.safetensors: .* is not finite"):
        load_checkpoint(model, str(bad))
    save_file({f"backbone.{k}": v for k, v in backbone.items()}, bad)
    with pytest.raises(CheckpointError, match="holds 'backbone.* a backbone alone"):
        load_checkpoint(model, str(bad))
    with pytest.raises(FileNotFoundError, match="lost"):
        load_checkpoint(model, "lost.safetensors")


def test_the_checkpoint_of_the_repository():
    """It is the file that its page describes, and the config's network."""
    folder = REPOSITORY / "checkpoints"
    (file,) = folder.glob("*.safetensors")
    page = (folder / "README.md").read_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in page
    assert f"{file.stat().st_size / 1e6:.2f} MB" in page
    model, _ = load_model(str(file), f"configs/{file.stem}.py")
    tracked = model.backbone.state_dict()["bn1.num_batches_tracked"]
    log = (folder / f"{file.stem}_log.json").read_text().splitlines()
    assert tracked == 2 * 20 * (10_000 // 128)  # two views
    assert json.loads(log[-1])["knn/top1"] == pytest.approx(78.96, abs=1e-4)
