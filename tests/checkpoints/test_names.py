import torch
from hypothesis import given
from hypothesis import strategies as st

from snclr_mm.checkpoints.formats import timm_format, torchvision_format
from snclr_mm.checkpoints.names import invert, pick, rename


def test_rename():
    pairs = [("layers.{}.ln1", "blocks.{}.norm1"), ("ln1", "norm"), ("a.{}.{}", "{}")]
    assert rename("layers.11.ln1.weight", pairs) == "blocks.11.norm1.weight"
    assert rename("ln1.bias", pairs) == "norm.bias"
    assert rename("ln1", pairs) == "norm"
    # Whole parts only.
    assert rename("ln12.bias", pairs) == "ln12.bias"
    assert rename("layers.1.ln12.bias", pairs) == "layers.1.ln12.bias"
    assert rename("blocks.3.norm1.bias", invert(pairs)) == "layers.3.ln1.bias"
    for name in (
        "layers.0.ffn.layers.0.0.weight",
        "layers.7.attn.qkv.bias",
        "ln1.bias",
    ):
        assert (
            rename(rename(name, timm_format.PAIRS), invert(timm_format.PAIRS)) == name
        )


@given(
    pairs=st.sampled_from([timm_format.PAIRS, torchvision_format.PAIRS]),
    which=st.integers(0, 99),
    index=st.integers(0, 10**4),
    rest=st.sampled_from(["", ".weight", ".bias", ".0.running_mean", ".layers.0.ln1"]),
)
def test_generated_names_go_there_and_back(pairs, which, index, rest):
    ours, theirs = pairs[which % len(pairs)]
    name = ours.format(index) + rest
    there = rename(name, pairs)
    assert there == theirs.format(index) + rest
    assert rename(there, invert(pairs)) == name


def test_pick():
    tensors = {name: torch.zeros(1) for name in ("m.norm.bias", "m.fc.bias", "q.bias")}
    backbone = pick(tensors, [("norm", "ln1")], prefix="m.", without=["fc"])
    assert list(backbone.state) == ["ln1.bias"]
    assert backbone.renamed == {"ln1.bias": "m.norm.bias"}
    assert backbone.dropped == ["m.fc.bias", "q.bias"]
