"""Two ranks with SyncBN against one with all images: CPUs, one GPU, and two."""

import pytest
import torch
from helpers.ddp_steps import STEPS, is_wait, train, train_share
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


def test_the_debug_mode_s_own_warning_is_no_wait():
    """torch warns once of the mode itself, within the first norm that is watched."""
    assert is_wait("called a synchronizing CUDA operation (Triggered internally at ...")
    assert not is_wait(
        "Synchronization debug mode is a prototype feature and does not yet detect all "
        "synchronizing operations (Triggered internally at ..."
    )
