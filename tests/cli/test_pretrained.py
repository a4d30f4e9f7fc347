import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS

from snclr_mm.cli import check_pretrained, clear_pretrained, set_pretrained
from snclr_mm.cli.pretrained import NEW_PARTS


def resnet(depth=18, **init_cfg):
    if init_cfg:
        init_cfg = dict(init_cfg=dict(type="Pretrained", **init_cfg))
    return dict(type="ResNet", depth=depth, base_channels=4, **init_cfg)


def vit(img_size=32, **init_cfg):
    arch = dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=16)
    if init_cfg:
        init_cfg = dict(init_cfg=dict(type="Pretrained", **init_cfg))
    return dict(
        type="VisionTransformer", arch=arch, img_size=img_size, patch_size=8, **init_cfg
    )


def classifier(backbone):
    return MODELS.build(dict(type="ImageClassifier", backbone=backbone))


def save(backbone, path):
    state = MODELS.build(backbone).state_dict()
    state = {f"backbone.{key}": value for key, value in state.items()}
    state["neck.fc.weight"] = torch.zeros(2, 2)
    torch.save(dict(state_dict=state, meta={}), path)
    return {"checkpoint": str(path), "prefix": "backbone."}


@pytest.mark.parametrize("backbone", [resnet, vit])
def test_right_checkpoint(backbone, tmp_path):
    init_cfg = save(backbone(), tmp_path / "a.pth")
    model = classifier(backbone(**init_cfg))
    check_pretrained(model)
    check_pretrained(torch.nn.DataParallel(model))
    model.init_weights()
    expected = torch.load(tmp_path / "a.pth")["state_dict"]
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, expected[f"backbone.{key}"]), key
    check_pretrained(classifier(backbone()))  # nothing pretrained: nothing to check


def test_a_model_that_is_not_built_yet(tmp_path):
    init_cfg = save(resnet(), tmp_path / "a.pth")
    cfg = dict(type="ImageClassifier", backbone=resnet(**init_cfg))
    check_pretrained(ConfigDict(cfg))
    cfg["backbone"]["init_cfg"]["prefix"] = "wrong."
    with pytest.raises(ValueError, match="wrong"):
        check_pretrained(ConfigDict(cfg))
    del cfg["backbone"]["init_cfg"]
    check_pretrained(ConfigDict(cfg))


def test_position_embedding_of_another_size_is_resized(tmp_path):
    init_cfg = save(vit(img_size=32), tmp_path / "a.pth")
    check_pretrained(classifier(vit(img_size=48, **init_cfg)))


def test_pretrained_in_a_list(tmp_path):
    init_cfg = save(resnet(), tmp_path / "a.pth")
    backbone = resnet(**init_cfg)
    kaiming = dict(type="Kaiming", layer="Conv2d")
    backbone["init_cfg"] = [kaiming, backbone["init_cfg"]]
    check_pretrained(classifier(backbone))
    backbone["init_cfg"][1]["prefix"] = "back."
    with pytest.raises(ValueError, match="0 tensors under 'back.'"):
        check_pretrained(classifier(backbone))


def test_wrong_prefix(tmp_path):
    init_cfg = save(resnet(), tmp_path / "a.pth")
    init_cfg["prefix"] = "encoder"
    with pytest.raises(ValueError) as error:
        check_pretrained(classifier(resnet(**init_cfg)))
    for part in (
        "model.backbone, a ResNet of 126 tensors",
        "the 0 tensors under 'encoder.' in " + init_cfg["checkpoint"],
        # Counters of batch norm may be missing: PyTorch fills them in.
        "105 not in the checkpoint (conv1.weight, bn1.weight, bn1.bias, ...)",
        "model.backbone.init_cfg.prefix",
        "backbone, neck",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("saved", "built", "message"),
    [
        # ResNet-34 has the tensors of ResNet-18, and more: nothing would be missing.
        (34, 18, r"96 not in the model \(layer1\.2\.conv1\.weight, "),
        (18, 34, r"80 not in the checkpoint \(layer1\.2\.conv1\.weight, "),
        (50, 18, r"28 of another shape \(layer1\.0\.conv1\.weight \[4, 64, 1, 1\] in"),
    ],
)
def test_other_architecture(saved, built, message, tmp_path):
    init_cfg = save(resnet(saved), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        check_pretrained(classifier(resnet(built, **init_cfg)))


def test_no_checkpoint(tmp_path):
    with pytest.raises(
        ValueError, match=r"--pretrained FILE, or set model\.backbone\.init_cfg"
    ):
        check_pretrained(classifier(resnet(checkpoint="", prefix="backbone.")))
    missing = str(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="none.pth"):
        check_pretrained(classifier(resnet(checkpoint=missing, prefix="backbone.")))


def test_a_backbone_without_its_last_stage(tmp_path):
    """As of a C4 detector; its last stage is another module."""
    init_cfg = save(resnet(), tmp_path / "a.pth")
    cut = dict(num_stages=3, out_indices=(2,), strides=(1, 2, 2), dilations=(1, 1, 1))
    check_pretrained(classifier(resnet(**init_cfg) | cut))


class Last(BaseModule):
    """The stage, and a norm that is new."""

    def __init__(self, init_cfg, channels=32):
        super().__init__(init_cfg)
        self.layer4 = MODELS.build(resnet()).layer4
        self.norm = torch.nn.BatchNorm2d(channels)


def test_new_parts(tmp_path, monkeypatch):
    monkeypatch.setitem(NEW_PARTS, "Last", ("norm",))
    init_cfg = save(resnet(), tmp_path / "a.pth")
    init_cfg["type"] = "Pretrained"
    model = torch.nn.ModuleDict(dict(head=Last(init_cfg)))
    check_pretrained(model)
    model["head"].init_weights()
    expected = torch.load(tmp_path / "a.pth")["state_dict"]
    key = "layer4.0.conv1.weight"
    assert torch.equal(model["head"].state_dict()[key], expected[f"backbone.{key}"])
    monkeypatch.delitem(NEW_PARTS, "Last")
    with pytest.raises(ValueError, match=r"4 not in the checkpoint \(norm\.weight"):
        check_pretrained(model)


def test_set_pretrained():
    part = dict(type="Pretrained", checkpoint="", prefix="backbone.")
    cfg = ConfigDict(
        backbone=dict(init_cfg=[dict(type="Kaiming"), dict(part)]),
        roi_head=dict(shared_head=dict(init_cfg=dict(part))),
        neck=dict(init_cfg=dict(type="Pretrained", checkpoint="a.pth")),
    )
    assert set_pretrained(cfg, "b.pth") == [
        "model.backbone.init_cfg.1.checkpoint",
        "model.roi_head.shared_head.init_cfg.checkpoint",
    ]
    assert cfg.backbone.init_cfg[1].checkpoint == "b.pth"
    assert cfg.roi_head.shared_head.init_cfg.checkpoint == "b.pth"
    clear_pretrained(cfg)
    assert cfg.backbone.init_cfg == [dict(type="Kaiming")]
    assert cfg.roi_head.shared_head.init_cfg is None
    assert cfg.neck.init_cfg.checkpoint == "a.pth"
    with pytest.raises(ValueError, match=r"--pretrained b\.pth: no part"):
        set_pretrained(ConfigDict(neck=cfg.neck), "b.pth")
