"""Two ranks with SyncBN against one with all images: CPUs, one GPU, and two."""

import pytest
import torch
from helpers.ddp_steps import STEPS, train, train_share
from helpers.ranks import run_on_ranks

gpu = pytest.mark.gpu


@pytest.mark.parametrize(
    "device, backend",
    [
        ("cpu", "gloo"),
        pytest.param("cuda", "gloo", marks=gpu),
        pytest.param("cuda", "nccl", marks=gpu),
    ],
)
def test_two_ranks_equal_one(device, backend):
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL needs a GPU for each rank")
    norms = (
        ["NonBlockingSyncBN"] if device == "cpu" else ["NonBlockingSyncBN", "SyncBN"]
    )
    losses, state, _ = train(device, "BN")
    assert len(set(losses)) == STEPS
    start = "fork" if device == "cpu" else "spawn"
    ranks = run_on_ranks(2, train_share, device, norms, start=start, backend=backend)
    for results in zip(*ranks, strict=True):
        mean = torch.tensor([result[0] for result in results]).double().mean(0)
        torch.testing.assert_close(mean, torch.tensor(losses).double())
        for _, of_rank, _ in results:
            torch.testing.assert_close(of_rank, state)
    if backend == "nccl":  # gloo copies through the host
        for ours, torchs in ranks:
            assert not ours[2] and torchs[2]
