from copy import deepcopy

import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.models.utils import CosineEMA
from torch import nn

from snclr_mm.models import ForeachCosineEMA


@pytest.fixture(autouse=True)
def message_hub():
    """Made anew, as the one that was made last is the current one."""
    MessageHub._instance_dict.pop("test_cosine_ema", None)
    hub = MessageHub.get_instance("test_cosine_ema")
    hub.update_info("max_iters", 7)
    return hub


def make_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2))
    model.register_parameter("frozen", nn.Parameter(torch.rand(3), requires_grad=False))
    model.register_buffer("not_saved", torch.rand(2), persistent=False)
    return model.to(memory_format=torch.channels_last)


def drift(model):
    """Change every tensor, as a step of training does."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(torch.rand_like(tensor) if tensor.is_floating_point() else 1)


def assert_same(ours, stock):
    state, expected = ours.state_dict(), stock.state_dict()
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    assert torch.equal(ours.module.not_saved, stock.module.not_saved)


@pytest.mark.parametrize("update_buffers", [False, True])
@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("end_momentum", [0.0, 0.1])
def test_equals_stock_to_the_last_bit(update_buffers, interval, end_momentum):
    model = make_model()
    options = dict(
        momentum=0.3,
        end_momentum=end_momentum,
        interval=interval,
        update_buffers=update_buffers,
    )
    ours, stock = (kind(model, **options) for kind in (ForeachCosineEMA, CosineEMA))
    seen = []
    for _ in range(7):
        drift(model)
        ours.update_parameters(model)
        stock.update_parameters(model)
        assert_same(ours, stock)
        seen.append(ours.module[0].weight.clone())
    assert ours.steps == 7
    assert not torch.equal(seen[0], seen[-1])
    assert not any(p.requires_grad for p in ours.parameters())
    assert ours.module[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "first, second",
    [(ForeachCosineEMA, CosineEMA), (CosineEMA, ForeachCosineEMA)],
)
def test_resumes_from_stock_and_the_other_way(first, second):
    model = make_model()
    average = first(model, momentum=0.3)
    for _ in range(3):
        drift(model)
        average.update_parameters(model)
    resumed = second(make_model(), momentum=0.3)
    resumed.load_state_dict(average.state_dict())
    resumed.module.not_saved.copy_(average.module.not_saved)
    assert_same(resumed, average)
    for _ in range(2):
        drift(model)
        average.update_parameters(model)
        resumed.update_parameters(model)
        assert_same(resumed, average)


def test_a_copy_goes_on_by_itself():
    model = make_model()
    average = ForeachCosineEMA(model, momentum=0.3)
    average.update_parameters(model)
    twin = deepcopy(average)
    drift(model)
    average.update_parameters(model)
    assert (average.steps, twin.steps) == (2, 1)
    twin.update_parameters(model)
    assert_same(twin, average)


def test_reads_nothing_from_the_device(monkeypatch):
    model = make_model()
    average = ForeachCosineEMA(model, momentum=0.3)
    average.update_parameters(model)
    steps = average.steps
    read = []
    for name in ("__bool__", "__int__", "__float__", "item", "tolist"):
        original = getattr(torch.Tensor, name)

        def spy(tensor, *args, original=original):
            read.append(tensor is steps)
            return original(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, spy)
    average.update_parameters(model)
    assert not any(read)
    average.load_state_dict(average.state_dict())
    average.update_parameters(model)
    assert sum(read) == 1  # once, after a checkpoint was loaded
    assert steps == 3


@pytest.mark.gpu
def test_equals_stock_on_a_gpu_without_waiting():
    model = make_model().cuda()
    ours = ForeachCosineEMA(model, momentum=0.3)
    stock = CosineEMA(model, momentum=0.3)
    for _ in range(4):
        drift(model)
        torch.cuda.set_sync_debug_mode("error")
        try:
            ours.update_parameters(model)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        stock.update_parameters(model)
        # The momentum's last bit: stock takes the cosine on the GPU.
        torch.testing.assert_close(ours.state_dict(), stock.state_dict())


def test_needs_the_length_of_training(message_hub):
    message_hub.runtime_info.pop("max_iters")
    model = make_model()
    average = ForeachCosineEMA(model, momentum=0.3)
    average.update_parameters(model)  # the first is a copy
    with pytest.raises(RuntimeError, match="'max_iters', ITERATIONS"):
        average.update_parameters(model)
