import torch
from helpers.ranks import run_on_ranks
from torch import nn

from snclr_mm.engine import CPUDistributedDataParallel


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.SyncBatchNorm(3)
        self.register_buffer("own", torch.zeros(1))

    def forward(self, x):
        return self.norm(self.linear(x)).square().sum()


def step(rank):
    torch.manual_seed(rank)
    # Runner passes the device of the rank, which a CPU has not.
    model = CPUDistributedDataParallel(module=Model(), device_ids=[rank])
    model.module.own += rank
    (model(torch.randn(4, 3)) + 0 * model.module.own.sum()).backward()
    kinds = {type(m) for m in model.modules()}
    return (
        nn.SyncBatchNorm in kinds,
        model.module.linear.weight.grad.clone(),
        model.module.own.item(),
    )


def test_reverts_sync_bn_and_averages_gradients_but_not_buffers():
    (sync_0, grad_0, own_0), (sync_1, grad_1, own_1) = run_on_ranks(2, step)
    assert not sync_0 and not sync_1
    assert torch.equal(grad_0, grad_1)
    assert (own_0, own_1) == (0, 1)
