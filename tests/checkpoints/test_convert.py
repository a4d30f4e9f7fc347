import io
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
import pytest
import timm
import torch
import torchvision
from helpers.tiny import CONFIG
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.models import ResNet, VisionTransformer
from mmpretrain.registry import MODELS
from safetensors.torch import load_file

from snclr_mm.checkpoints import SOURCES, TARGETS, convert, convert_checkpoint
from snclr_mm.checkpoints.convert import read_image

VIT = dict(embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)
SIZES = {"resnet50": 318, "vit-small": 150}
PREFIXES = {"online": "backbone.", "momentum": "momentum_encoder.module.0."}
TIMM_VIT = dict(img_size=32, patch_size=16, embed_dim=384, depth=12, num_heads=12)


def mmpretrain_model(name, img_size=32):
    if name == "resnet50":
        model = ResNet(50)
    else:
        model = VisionTransformer(VIT, img_size=img_size, out_type="raw")
    model.eval()  # MMPretrain's returns None
    return model


def source_state(path, branch="online"):
    state = torch.load(path, weights_only=False)["state_dict"]
    prefix = PREFIXES[branch]
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def library_features(name, to, path, image):
    """Load a converted file as a user of the library would, and run its own model."""
    if to == "torchvision":
        state = torch.load(path, weights_only=True)
        if name == "resnet50":
            model = torchvision.models.resnet50()
            missing, unknown = model.load_state_dict(state, strict=False)
            assert missing == ["fc.weight", "fc.bias"] and not unknown
            nodes = {"layer4": "out"}
        else:
            model = torchvision.models.VisionTransformer(32, 16, 12, 12, 384, 1536)
            missing, unknown = model.load_state_dict(state, strict=False)
            assert all(k.startswith("heads.") for k in missing) and not unknown
            nodes = {"encoder.ln": "out"}
        extractor = torchvision.models.feature_extraction.create_feature_extractor(
            model.eval(), nodes
        )
        return model, extractor(image)["out"]
    if to == "timm":
        if name == "resnet50":
            model = timm.create_model(
                "resnet50", num_classes=0, checkpoint_path=str(path)
            )
        else:
            model = timm.models.VisionTransformer(**TIMM_VIT, num_classes=0)
            timm.models.load_checkpoint(model, str(path))  # strict
        return model, model.eval().forward_features(image)
    model = mmpretrain_model(name)
    if to == "safetensors":
        model.load_state_dict(load_file(path))
    else:
        load_checkpoint(
            model, str(path), strict=True, revise_keys=[(r"^backbone\.", "")]
        )
    return model, model(image)[-1]


@pytest.mark.parametrize("branch", ["online", "momentum"])
@pytest.mark.parametrize("to", ["mmpretrain", "torchvision", "timm", "safetensors"])
def test_every_tensor_arrives(trained, to, branch, tmp_path):
    """Counts, values and float32 features in the target library's own model."""
    name, checkpoint = trained
    out = tmp_path / f"out.{'safetensors' if to == 'safetensors' else 'pth'}"
    result = convert_checkpoint(checkpoint, out, to, branch=branch)
    assert result.difference <= 1e-5
    assert not result.lost
    state = source_state(checkpoint, branch)
    assert len(result.renamed) == len(state) == SIZES[name]
    assert len(result.dropped) == (
        len(torch.load(checkpoint, weights_only=False)["state_dict"]) - SIZES[name]
    )
    reference = mmpretrain_model(name)
    reference.load_state_dict(state)
    image = read_image(32).float()
    with torch.no_grad():
        model, features = library_features(name, to, out, image)
        expected = reference(image)[-1]
    assert features.shape == expected.shape
    assert expected.abs().max() > 0.1
    assert (features - expected).abs().max() <= 1e-5
    own = model.state_dict()
    for old, new in result.renamed.items():
        key = new.removeprefix("backbone.")
        assert torch.equal(own[key], state[old.removeprefix(PREFIXES[branch])])
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_branches_differ(trained):
    _, checkpoint = trained
    online, momentum = (source_state(checkpoint, b) for b in PREFIXES)
    assert any(not torch.equal(online[k], momentum[k]) for k in online)


@pytest.mark.parametrize("to", ["mmdet", "mmseg"])
def test_every_tensor_arrives_downstream(trained, to, tmp_path):
    pytest.importorskip(to, reason=f"{to} is not installed")
    result = convert_checkpoint(trained[1], tmp_path / "out.pth", to)
    assert result.difference <= 1e-5 and not result.lost
    assert len(result.renamed) == SIZES[trained[0]]


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit"])
def test_from_a_library_and_back(library, name, tmp_path):
    """With its classifier dropped, and bit for bit."""
    if name == "vit" and library == "timm":
        model = timm.models.VisionTransformer(
            img_size=32, embed_dim=768, depth=2, num_heads=12, num_classes=7
        )
    elif name == "vit":
        model = torchvision.models.VisionTransformer(32, 16, 2, 12, 768, 3072)
    elif library == "timm":
        model = timm.create_model(name, num_classes=7)
    else:
        model = getattr(torchvision.models, name)()
    source, middle, back = (tmp_path / f"{i}.pth" for i in range(3))
    torch.save(model.state_dict(), source)
    there = convert_checkpoint(source, middle, "mmpretrain", library)
    again = convert_checkpoint(
        middle, back, library, num_heads=getattr(there.architecture, "num_heads", None)
    )
    assert there.difference <= 1e-5 and again.difference <= 1e-5
    classifier = {n for n in model.state_dict() if re.match("fc|head", n)}
    assert set(there.dropped) == classifier and classifier
    returned = torch.load(back, weights_only=True)
    assert set(returned) == set(model.state_dict()) - classifier
    for key, value in returned.items():
        assert torch.equal(value, model.state_dict()[key])


def moco_v3_checkpoint(model, arch, classifier):
    """The layout of facebookresearch/moco-v3 and of the SNCLR authors' code."""
    state = {}
    for encoder, shift in (("base_encoder", 0), ("momentum_encoder", 1)):
        for key, value in model.state_dict().items():
            if not key.startswith(classifier):
                state[f"module.{encoder}.{key}"] = value + shift
        state[f"module.{encoder}.{classifier}.0.weight"] = torch.ones(8, 8)
        state[f"module.{encoder}.{classifier}.1.running_mean"] = torch.ones(8)
    state["module.predictor.0.weight"] = torch.ones(8, 8)
    return {"epoch": 300, "arch": arch, "state_dict": state, "optimizer": {}}


@pytest.mark.parametrize("name", ["vit_small", "resnet50"])
def test_from_moco_v3(name, tmp_path):
    if name == "vit_small":
        model = timm.models.VisionTransformer(**TIMM_VIT).eval()
        checkpoint = moco_v3_checkpoint(model, name, "head")
        target = mmpretrain_model("vit-small")
    else:
        model = torchvision.models.resnet50().eval()
        checkpoint = moco_v3_checkpoint(model, name, "fc")
        target = mmpretrain_model("resnet50")
    source, out = tmp_path / "in.pth.tar", tmp_path / "out.pth"
    torch.save(checkpoint, source)
    result = convert_checkpoint(source, out, "mmpretrain", "moco-v3")
    assert len(result.dropped) == len(checkpoint["state_dict"]) - len(result.renamed)
    load_checkpoint(target, str(out), strict=True, revise_keys=[(r"^backbone\.", "")])
    image = read_image(32).float()
    with torch.no_grad():
        if name == "resnet50":
            found = target(image)[-1].mean((2, 3))
            model.fc = torch.nn.Identity()
            expected = model(image)
        else:
            found, expected = target(image)[-1], model.forward_features(image)
    assert (found - expected).abs().max() <= 1e-5
    convert_checkpoint(source, out, "mmpretrain", "moco-v3", branch="momentum")
    momentum = torch.load(out, weights_only=True)["state_dict"]
    first = next(iter(target.state_dict()))
    shifted = target.state_dict()[first] + 1
    assert torch.equal(momentum[f"backbone.{first}"], shifted)


def test_heads_are_never_guessed(trained, tmp_path):
    """Width 384 has 12 heads in MoCo v3 and 6 in timm: the tensors are the same."""
    name, checkpoint = trained
    if name != "vit-small":
        pytest.skip("a ResNet has no heads")
    convert_checkpoint(checkpoint, tmp_path / "a.pth", "timm")
    with pytest.raises(ValueError, match="--num-heads"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.pth", "mmpretrain", "timm")
    result = convert_checkpoint(
        tmp_path / "a.pth", tmp_path / "b.pth", "mmpretrain", "timm", num_heads=12
    )
    assert result.architecture.num_heads == 12


@pytest.mark.parametrize(
    ("backbone", "match"),
    [
        (dict(type="ResNet", depth=18, style="caffe"), "style='caffe'"),
        (dict(depth=18, norm_cfg=dict(type="BN", eps=1e-3)), "norm_cfg.eps=0.001"),
        (dict(depth=18, strides=(1, 1, 2, 2)), r"strides=\[1, 1, 2, 2\]"),
        (dict(depth=18, conv_cfg=dict(type="ConvWS")), "conv_cfg={'type': 'ConvWS'}"),
        (dict(type="VisionTransformer", norm_cfg=dict(type="LN")), "eps=1e-05"),
        (dict(type="VisionTransformer", patch_cfg=dict(stride=4)), "patch_cfg={'stri"),
        (
            dict(
                depth=18,
                strides=(1, 2, 2, 2),
                norm_cfg=dict(type="SyncBN"),
                conv_cfg=dict(type="Conv2d"),
                layer_cfgs=None,
            ),
            None,
        ),
    ],
)
def test_what_tensors_do_not_show(backbone, match, tmp_path):
    state = {f"backbone.{k}": v for k, v in ResNet(18).state_dict().items()}
    settings = ", ".join(f"{k}={v!r}" for k, v in backbone.items())
    meta = {"cfg": f"model = dict(backbone=dict({settings}))"}
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save({"state_dict": state, "meta": meta}, source)
    if match is None:
        convert_checkpoint(source, out, "torchvision")
    else:
        with pytest.raises(ValueError, match=match):
            convert_checkpoint(source, out, "torchvision")


def test_any_backbone_goes_to_mmpretrain(tmp_path):
    """As the checkpoint's config describes it: the small recipes' network."""
    cfg = Config.fromfile(CONFIG)
    model = MODELS.build(cfg.model.backbone)
    state = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    source = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": state, "meta": {"cfg": cfg.pretty_text}}, source)
    for to, name in (("mmpretrain", "a.pth"), ("safetensors", "a.safetensors")):
        conversion = convert_checkpoint(source, tmp_path / name, to)
        assert conversion.difference == 0 and "ResNet_CIFAR" in str(
            conversion.architecture
        )
    saved = load_file(tmp_path / "a.safetensors")
    assert saved.keys() == model.state_dict().keys()
    assert (tmp_path / "a.safetensors").stat().st_mode == source.stat().st_mode
    with pytest.raises(ValueError, match="--to mmpretrain and --to safetensors take"):
        convert_checkpoint(source, tmp_path / "b.pth", "timm")
    evil = cfg.pretty_text.replace("ResNet_CIFAR", "os.system")
    torch.save({"state_dict": state, "meta": {"cfg": evil}}, source)
    with pytest.raises(ValueError, match=r"os\.system.* is not a registered component"):
        convert_checkpoint(source, tmp_path / "b.pth", "mmpretrain")


@pytest.mark.parametrize(
    "backbone",
    [
        dict(type="ResNet", depth=18, strides=(1, 1, 2, 2)),
        dict(type="ResNet", depth=18, base_channels=32, stem_channels=64),
        dict(type="ResNet", depth=18, style="caffe"),
        dict(type="ResNetV1d", depth=18),
    ],
)
def test_backbones_that_only_a_config_tells(backbone, tmp_path):
    model = MODELS.build(dict(backbone, _scope_="mmpretrain"))
    state = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    source = tmp_path / "epoch_1.pth"
    text = f"model = dict(backbone={backbone!r})"
    torch.save({"state_dict": state, "meta": {"cfg": text}}, source)
    conversion = convert_checkpoint(source, tmp_path / "a.safetensors", "safetensors")
    assert conversion.difference == 0
    assert backbone["type"] in str(conversion.architecture)
    assert load_file(tmp_path / "a.safetensors").keys() == model.state_dict().keys()


def test_averaged_weights_are_listed_as_dropped(tmp_path):
    model = torchvision.models.resnet18()
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    ddp = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"model": ddp, "model_ema": model.state_dict()}, source)
    result = convert_checkpoint(source, out, "torchvision", "torchvision")
    assert "model_ema.conv1.weight" in result.dropped
    assert result.renamed["module.conv1.weight"] == "conv1.weight"


def test_detectron2_names(tmp_path):
    """Against names of its model zoo's ResNet-50; num_batches_tracked has none."""
    model = torchvision.models.resnet50()
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save(model.state_dict(), source)
    result = convert_checkpoint(source, out, "detectron2", "torchvision", verify=False)
    assert result.difference is None
    saved = torch.load(out, weights_only=True)
    assert saved["matching_heuristics"] is True
    assert len(saved["model"]) == 265 and len(result.lost) == 53
    state = model.state_dict()
    for theirs, ours in {
        "stem.conv1.weight": "conv1.weight",
        "stem.conv1.norm.bias": "bn1.bias",
        "res2.0.shortcut.weight": "layer1.0.downsample.0.weight",
        "res2.0.shortcut.norm.running_mean": "layer1.0.downsample.1.running_mean",
        "res3.3.conv1.norm.weight": "layer2.3.bn1.weight",
        "res4.5.conv2.weight": "layer3.5.conv2.weight",
        "res5.2.conv3.norm.running_var": "layer4.2.bn3.running_var",
    }.items():
        assert torch.equal(saved["model"][theirs], state[ours])
    pattern = r"(stem|res[2-5]\.\d)\.(conv[123]|shortcut)\.(weight|norm\.\w+)"
    assert all(re.fullmatch(pattern, key) for key in saved["model"])


def save_vit(path, grid=2):
    model = VisionTransformer(
        dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=48),
        img_size=grid * 16,
    )
    state = {f"backbone.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state}, path)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("generated")


#: A conversion takes a hundred times as long as what is generated elsewhere.
FEW = settings(max_examples=settings().max_examples // 5)


@FEW
@given(
    heads=st.integers(1, 4),
    head_width=st.integers(1, 8),
    layers=st.integers(1, 3),
    hidden=st.integers(1, 99),
    patch=st.integers(1, 8),
    grid=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    library=st.sampled_from(["timm", "torchvision"]),
)
# timm multiplies the width by a ratio, and rounds down.
@example(3, 7, 1, 59, 1, 1, 0, "timm")
def test_generated_vits_go_there_and_back(
    folder, heads, head_width, layers, hidden, patch, grid, seed, library
):
    torch.manual_seed(seed)
    arch = dict(
        embed_dims=heads * head_width,
        num_layers=layers,
        num_heads=heads,
        feedforward_channels=hidden,
    )
    model = VisionTransformer(arch, img_size=grid * patch, patch_size=patch)
    state = {f"backbone.{k}": v for k, v in model.state_dict().items()}
    source, middle, back = (folder / f"{i}.pth" for i in range(3))
    torch.save({"state_dict": state}, source)
    options = dict(num_heads=heads)
    there = convert_checkpoint(source, middle, library, **options)
    again = convert_checkpoint(middle, back, "mmpretrain", library, **options)
    assert len(there.renamed) == len(state) and not there.lost + there.dropped
    assert there.architecture == again.architecture
    returned = torch.load(back, weights_only=True)["state_dict"]
    assert returned.keys() == state.keys()
    assert all(torch.equal(returned[key], state[key]) for key in state)


DAMAGES = {
    "missing": lambda value: None,
    "text": lambda value: "text",
    "scalar": lambda value: value.sum(),
    "flat": lambda value: value.flatten(),
    "one more dimension": lambda value: value[None],
    "half": lambda value: value[: len(value) // 2],
    "empty": lambda value: value[:0],
    "integers": lambda value: value.long(),
    "booleans": lambda value: value > 0,
    "complex": lambda value: value.to(torch.complex64),
    "float16": lambda value: value.half(),
    "sparse": lambda value: value.to_sparse(),
    "meta": lambda value: value.to("meta"),
    "NaN": lambda value: value * torch.nan,
}


@pytest.mark.parametrize("shape", [(), (24,), (1, 0, 24)])
@pytest.mark.parametrize("name", ["cls_token", "pos_embed", "patch_embed.projection"])
def test_sizes_are_read_off_tensors_that_have_them(name, shape, tmp_path):
    source = tmp_path / "in.pth"
    save_vit(source)
    checkpoint = torch.load(source, weights_only=True)
    name += ".weight" * name.endswith("projection")
    checkpoint["state_dict"][f"backbone.{name}"] = torch.zeros(shape)
    torch.save(checkpoint, source)
    with pytest.raises(ValueError, match=f"{name} has the shape") as error:
        convert_checkpoint(source, tmp_path / "out.pth", "timm", num_heads=2)
    assert str(list(shape)) in str(error.value)


@FEW
@given(data=st.data())
def test_generated_damage_is_refused_or_harmless(folder, data):
    """A ValueError, or a file whose model has the source's features."""
    source_format = data.draw(st.sampled_from(SOURCES))
    to = data.draw(st.sampled_from([name for name in TARGETS if name[:2] != "mm"]))
    source = folder / "in.pth"
    out = folder / f"out.{'safetensors' if to == 'safetensors' else 'pth'}"
    out.unlink(missing_ok=True)
    save_vit(source)
    if source_format in ("timm", "torchvision"):
        convert_checkpoint(source, folder / "whole.pth", source_format, num_heads=2)
        checkpoint = torch.load(folder / "whole.pth", weights_only=True)
        state = checkpoint
    else:
        checkpoint = torch.load(source, weights_only=True)
        state = checkpoint["state_dict"]
    kinds = st.tuples(st.sampled_from(list(state)), st.sampled_from(list(DAMAGES)))
    damages = data.draw(st.lists(kinds, max_size=2, unique_by=lambda x: x[0]))
    for name, kind in damages:
        state[name] = DAMAGES[kind](state[name])
        if kind == "missing":
            del state[name]
    for name in data.draw(st.lists(st.text(max_size=20), max_size=2)):
        state[name] = torch.ones(2)
    torch.save(checkpoint, source)
    num_heads = data.draw(st.none() | st.integers(-1, 4))
    image_size = data.draw(st.none() | st.sampled_from([-16, 0, 8, 32, 48]))
    options = dict(num_heads=num_heads, image_size=image_size)
    verify = to != "detectron2"  # it is not installed
    try:
        result = convert_checkpoint(
            source, out, to, source_format, verify=verify, **options
        )
    except ValueError as error:
        assert len(str(error)) > 30
        assert not out.exists()
    else:
        assert not verify or result.difference <= 1e-5
        # Its imaginary part would be lost.
        assert "complex" not in [kind for _, kind in damages]


def test_positions_are_resized_as_mmpretrain_does(tmp_path):
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    model = save_vit(source)
    torch.nn.init.normal_(model.pos_embed)
    state = {f"backbone.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state}, source)
    result = convert_checkpoint(source, out, "timm", num_heads=2, image_size=80)
    assert result.architecture.image_size == 80 and result.difference <= 1e-5
    larger = VisionTransformer(model.arch_settings, img_size=80)
    larger.load_state_dict(model.state_dict())  # resizes
    embedding = torch.load(out, weights_only=True)["pos_embed"]
    assert torch.equal(embedding, larger.pos_embed)
    for size, match in ((50, "multiple of the patch size 16"), (8, "multiple")):
        with pytest.raises(ValueError, match=f"--image-size {size} .*{match}"):
            convert_checkpoint(source, out, "timm", num_heads=2, image_size=size)
    torch.save(torchvision.models.resnet18().state_dict(), source)
    with pytest.raises(ValueError, match="is for plain ViTs, not for a ResNet-18"):
        convert_checkpoint(source, out, "timm", "torchvision", image_size=64)


@pytest.mark.parametrize("to", ["timm", "torchvision"])
def test_a_wrong_tensor_is_found_and_nothing_written(to, tmp_path, monkeypatch):
    """Of the right name and shape: queries and keys exchanged in one layer."""
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    save_vit(source)
    out.write_bytes(b"was here")
    form = convert.FORMATS[to]

    def write(state, architecture):
        state = dict(state)
        qkv = state["layers.0.attn.qkv.weight"].clone()
        state["layers.0.attn.qkv.weight"] = torch.cat([qkv[24:], qkv[:24]])
        return form.write(state, architecture)

    monkeypatch.setitem(convert.FORMATS, to, form._replace(write=write))
    with pytest.raises(ValueError, match=f"features of the {to} model differ by"):
        convert_checkpoint(source, out, to, num_heads=2)
    assert out.read_bytes() == b"was here"
    assert len(list(tmp_path.iterdir())) == 2


def test_half_a_file_is_never_left(tmp_path, monkeypatch):
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    save_vit(source)

    def save(saved, path):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(convert.torch, "save", save)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoint(source, out, "timm", num_heads=2)
    assert [p.name for p in tmp_path.iterdir()] == ["in.pth"]


class Code:
    def __reduce__(self):
        return print, ("code of the checkpoint ran",)


def test_code_is_refused_unless_trusted(tmp_path, capsys, monkeypatch):
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    for name in names:
        monkeypatch.setenv(name, "0")
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    save_vit(source)
    torch.save({**torch.load(source, weights_only=True), "meta": Code()}, source)
    with pytest.raises(pickle.UnpicklingError):
        convert_checkpoint(source, out, "timm", num_heads=2)
    assert "code of the checkpoint ran" not in capsys.readouterr().out
    assert not out.exists()
    convert_checkpoint(source, out, "timm", num_heads=2, trust=True)
    assert "code of the checkpoint ran" in capsys.readouterr().out
    torch.load(out, weights_only=True)
    # What other code of the process may load is as before.
    assert [os.environ[name] for name in names] == ["0", "0"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(to="onnx"), f"--to 'onnx': use one of {', '.join(TARGETS)}"),
        (dict(to="moco-v3"), "--to 'moco-v3': use one of"),
        (dict(source_format="mmdet"), f"--from .*use one of {', '.join(SOURCES)}"),
        (dict(branch="target"), "--branch 'target': use one of online, momentum"),
        (dict(branch="momentum"), "momentum_encoder.module.0.*only under backbone"),
        (dict(source_format="timm", branch="momentum"), "timm's models have one enc"),
        (dict(source_format="moco-v3"), "no tensors under 'module.base_encoder.'"),
        (dict(source_format="torchvision"), "neither those of a plain ResNet nor"),
        (dict(num_heads=None), "attention heads.*--num-heads"),
        (dict(num_heads=5), "--num-heads 5 does not divide the width 24"),
    ],
)
def test_bad_options(options, match, tmp_path):
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    save_vit(source)
    settings = {"to": "timm", "num_heads": 2, **options}
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        convert_checkpoint(source, out, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["in.pth"]


def test_bad_files(tmp_path):
    source = tmp_path / "in.pth"
    save_vit(source)
    for out, to, match in (
        ("out.safetensors", "mmpretrain", "no flat dict"),
        ("out.pth", "safetensors", "named .safetensors"),
        ("none/out.pth", "timm", "a folder that exists"),
        ("out.pkl", "detectron2", "named .pth"),
        ("in.pth", "timm", "IN itself"),
    ):
        with pytest.raises(ValueError, match=match):
            convert_checkpoint(source, tmp_path / out, to, num_heads=2)
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        convert_checkpoint(tmp_path / "none.pth", tmp_path / "out.pth", "timm")
    torch.save({"epoch": 3}, source)
    with pytest.raises(ValueError, match="holds no tensors"):
        convert_checkpoint(source, tmp_path / "out.pth", "timm")
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "no tensors")
    for name, content in (
        ("page.pth", b"<html>not found</html>"),
        ("cut.pth", source.read_bytes()[:-100]),
        ("other.pth", other.getvalue()),
        ("text.safetensors", b"text"),
    ):
        broken = tmp_path / name
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is no "):
            convert_checkpoint(broken, tmp_path / "out.pth", "timm")
    with pytest.raises(ValueError, match="download it first"):
        convert_checkpoint("https://a.b/c.safetensors", tmp_path / "out.pth", "timm")
    model = torchvision.models.wide_resnet50_2()
    torch.save(model.state_dict(), source)
    with pytest.raises(ValueError, match="plain ResNet-50") as error:
        convert_checkpoint(source, tmp_path / "out.pth", "timm", "torchvision")
    assert len(str(error.value)) < 1500
    model = torchvision.models.resnet18()
    torch.nn.init.constant_(model.bn1.weight, torch.nan)
    torch.save(model.state_dict(), source)
    with pytest.raises(ValueError, match="bn1.weight is not finite"):
        convert_checkpoint(source, tmp_path / "out.pth", "timm", "torchvision")


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    source, out = tmp_path / "in.pth", tmp_path / "out.pth"
    save_vit(source)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"'\.\[timm\]'.*--no-verify"):
        convert_checkpoint(source, out, "timm", num_heads=2)
    assert not out.exists()
    result = convert_checkpoint(source, out, "timm", num_heads=2, verify=False)
    assert result.difference is None and out.exists()


def test_picture_is_what_the_models_expect():
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    photo = cv2.resize(cv2.imread(path), (64, 64))  # BGR
    picture = read_image(64)
    assert picture.shape == (1, 3, 64, 64) and picture.dtype == torch.float64
    red = (photo[..., 2].astype(float) - 123.675) / 58.395
    assert np.allclose(picture[0, 0].numpy(), red)
