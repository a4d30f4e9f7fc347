import hashlib

import pytest
import timm
import torch
from helpers.command import load_tool, tool
from mmpretrain.models import VisionTransformer

convert_checkpoint = load_tool("convert_checkpoint.py")


def save_model(path):
    """A ViT as a part of a pretraining model, beside other parts."""
    arch = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
    backbone = VisionTransformer(arch, img_size=32)
    state = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
    state |= {"neck.fc0.weight": torch.ones(2), "neck.bn0.weight": torch.ones(2)}
    state |= {f"momentum_encoder.module.0.{k}": v for k, v in state.items()}
    cfg = f"""
x = open("never run")
model = dict(
    backbone=dict(type="VisionTransformer", arch=dict({
        ", ".join(f"{k}={v}" for k, v in arch.items())
    })),
    neck=dict(norm_cfg=x),
)
"""
    torch.save({"state_dict": state, "meta": {"cfg": cfg}}, path)
    return backbone


def test_command(tmp_path):
    backbone = save_model(tmp_path / "in.pth")
    text = tool(
        "convert_checkpoint.py", "in.pth", "o.pth", "--to", "timm", cwd=tmp_path
    )
    assert "ViT of 2 layers, width 24, 2 heads, patches of 16, images of 32" in text
    assert "30 tensors kept, 30 of them renamed" in text
    assert "backbone.cls_token -> cls_token" in text
    assert "34 tensors dropped: neck (2), momentum_encoder (32)" in text
    assert "verified: largest difference of a feature" in text
    content = (tmp_path / "o.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert f"o.pth: {len(content) / 1e6:.2f} MB, SHA-256 {digest}\n" in text
    # What it prints as the way to load the file does load it.
    line = text.rpartition("Use it as: ")[2].strip()
    space = {"timm": timm}
    exec(line.replace("o.pth", str(tmp_path / "o.pth")), space)
    assert torch.equal(space["model"].norm.weight, backbone.ln1.weight)


def test_options(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model("in.pth")
    convert_checkpoint.main(
        ["in.pth", "o.pth", "--to", "detectron2", "--no-verify", "--verbose"]
    )
    text = capsys.readouterr().out
    assert "NOT verified" in text and "ViTDet" in text
    assert "  backbone.layers.1.ln1.bias -> blocks.1.norm1.bias\n" in text
    assert "  neck.fc0.weight\n" in text
    with pytest.raises(SystemExit, match=r"Error: .*none\.pth"):
        convert_checkpoint.main(["none.pth", "o.pth", "--to", "timm"])
    with pytest.raises(SystemExit, match="--no-verify"):
        convert_checkpoint.main(["in.pth", "o.pth", "--to", "detectron2"])
    with pytest.raises(SystemExit):
        convert_checkpoint.main(["in.pth", "o.pth", "--to", "onnx"])
    assert "invalid choice: 'onnx'" in capsys.readouterr().err


class Code:
    def __reduce__(self):
        return print, ("ran",)


def test_code_is_refused(tmp_path, monkeypatch):
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, "0")
    torch.save({"state_dict": {}, "meta": Code()}, tmp_path / "in.pth")
    with pytest.raises(SystemExit, match="--trust-checkpoint"):
        convert_checkpoint.main(
            [str(tmp_path / "in.pth"), str(tmp_path / "o.pth"), "--to", "timm"]
        )
