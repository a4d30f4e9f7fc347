import warnings
from copy import deepcopy

import pytest
import torch
from helpers.models import RESNET, neck, soft_head, train
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS

from snclr_mm.models import SNCLR
from snclr_mm.models.compile_forward import compile_forward


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    MessageHub.get_instance("test_compile_forward").update_info("max_iters", 100)
    monkeypatch.setattr("snclr_mm.models.compile_forward._warned", False)
    torch._dynamo.reset()


def build(**options):
    torch.manual_seed(0)
    return MODELS.build(
        dict(type="SNCLR", backbone=RESNET, neck=neck(), head=soft_head(), **options)
    )


def broken(graph, inputs):
    raise RuntimeError("no compiler here")


def test_changes_neither_numbers_nor_names():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    plain, compiled = build(), build(compile=dict(backend=backend))
    expected, _ = train(plain, 3, images=8)
    losses, _ = train(compiled, 3, images=8)
    assert losses == expected
    assert len(graphs) >= 4  # backbone and projector, with and without gradient
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(compiled.state_dict()[name], value), name
    assert compiled.backbone._compiled_call_impl is not None
    assert deepcopy(compiled).backbone._compiled_call_impl is None  # for EMAHook


def test_goes_on_uncompiled_after_one_warning():
    model = build(compile=dict(backend=broken))
    with pytest.warns(UserWarning, match="model.compile.*no compiler here") as caught:
        losses, _ = train(model, 2, images=8)
    assert len([w for w in caught if "torch.compile failed" in str(w.message)]) == 1
    assert losses == train(build(), 2, images=8)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.backbone(torch.zeros(1, 3, 16, 16))


def test_errors_of_the_module_itself_are_raised():
    module = torch.nn.Linear(2, 2)
    compile_forward(module, backend="eager")
    with pytest.raises(Exception, match="shapes cannot be multiplied"):
        module(torch.zeros(1, 3))


def test_bad_option():
    with pytest.raises(TypeError, match=r"model\.compile='inductor' must be True, Fal"):
        SNCLR(backbone=RESNET, neck=neck(), head=soft_head(), compile="inductor")


@pytest.mark.slow
def test_inductor():
    losses, _ = train(build(compile=True), 3, images=8)
    assert losses == pytest.approx(train(build(), 3, images=8)[0], rel=1e-3)
