from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.naive import naive_loss
from helpers.ranks import run_on_ranks
from hypothesis import given
from hypothesis import strategies as st

from snclr_mm.models import CrossAttentionNeck, soft_neighbor_loss

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*.npz"))
NAMES = ("loss", "grad_z", "grad_y1")
OBJECTIVES = ("log_of_sum", "sum_of_logs")


def golden_rank(rank, path, objective):
    """Loss and gradients of one rank on a golden file."""
    data = {k: torch.from_numpy(v) for k, v in np.load(path).items()}
    released = objective == "sum_of_logs"
    z = data["z"][rank].requires_grad_()
    y_1 = data["y1"][rank].requires_grad_()
    index = data["neighbor_index"][rank]
    neck = CrossAttentionNeck(
        z.shape[1],
        projection="identity",
        threshold=released and bool(data["threshold"]),
    )
    temperature = float(data["temperature"])
    loss = soft_neighbor_loss(
        z,
        data["y2"][rank],
        index,
        data["queue"],
        neck(y_1, data["queue"][index]),
        temperature,
        objective,
    )
    if released:
        loss = 2 * temperature * loss
    loss.backward()
    return loss.detach(), z.grad, y_1.grad


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_values_on_real_processes(path, objective):
    data = np.load(path)
    suffix = "released" if objective == "sum_of_logs" else "paper"
    world_size = len(data["z"])
    results = run_on_ranks(world_size, golden_rank, path, objective)
    for name, values in zip(NAMES, zip(*results, strict=True), strict=True):
        expected = data[f"{name}_{suffix}"]
        np.testing.assert_allclose(torch.stack(values), expected, rtol=0, atol=1e-9)


def test_there_are_four_golden_files():
    assert len(GOLDEN) == 4


def make(n, K, Q, d, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    candidates = F.normalize(torch.randn(Q, d, generator=g, dtype=torch.float64), dim=1)
    return dict(
        query=torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype),
        key=torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype),
        neighbor_index=torch.randint(0, Q, (n, K), generator=g),
        candidates=candidates.to(dtype),
        positiveness=torch.rand(n, K, generator=g, dtype=torch.float64).to(dtype),
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("w_0", [1.0, 0.3])
@pytest.mark.parametrize(
    "n, K, Q, d",
    [(1, 1, 1, 1), (1, 5, 3, 4), (4, 0, 8, 3), (7, 3, 200, 16), (9, 30, 40, 8)],
)
def test_equals_naive_loop(n, K, Q, d, w_0, objective):
    # Q < nK repeats neighbors, within an image and between images.
    inputs = make(n, K, Q, d)
    loss = soft_neighbor_loss(
        **inputs,
        temperature=0.2,
        objective=objective,
        own_positiveness=w_0,
    )
    expected = naive_loss(*inputs.values(), 0.2, objective, w_0)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)


@given(
    n=st.integers(1, 5),
    views=st.integers(1, 2),
    K=st.integers(0, 4),
    Q=st.integers(1, 9),
    d=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.02, 10),
    objective=st.sampled_from(OBJECTIVES),
    w_0=st.floats(1e-3, 10),
    without=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_generated_inputs_equal_naive_loop(
    n, views, K, Q, d, seed, temperature, objective, w_0, without, scale
):
    parts = [make(n, K, Q, d, seed=seed + view) for view in range(views)]
    inputs, expected = dict(parts[0]), []
    for part in parts:
        part["query"] *= scale
        if without:  # some neighbors do not count
            part["positiveness"][::2] = 0
        view = {**inputs, **{k: part[k] for k in ("query", "positiveness")}}
        expected.append(naive_loss(*view.values(), temperature, objective, w_0))
    for name in ("query", "positiveness"):
        inputs[name] = torch.cat([part[name] for part in parts])
    inputs["query"].requires_grad_()
    loss = soft_neighbor_loss(
        **inputs, temperature=temperature, objective=objective, own_positiveness=w_0
    )
    expected = torch.stack(expected).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    loss.backward()
    assert inputs["query"].grad.isfinite().all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradcheck(objective):
    inputs = make(n=4, K=3, Q=6, d=5)
    query = inputs.pop("query").requires_grad_()
    weight = inputs.pop("positiveness").requires_grad_()

    def function(query, weight):
        return soft_neighbor_loss(
            query,
            positiveness=weight,
            **inputs,
            temperature=0.5,
            objective=objective,
        )

    assert torch.autograd.gradcheck(function, (query, weight))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("K", [0, 4])
def test_gradients_with_keys_equal_naive_loop(K, objective):
    inputs = make(n=4, K=K, Q=6, d=3)
    for name in ("query", "key", "candidates"):
        inputs[name].requires_grad_()
    loss = soft_neighbor_loss(
        **inputs,
        temperature=0.3,
        objective=objective,
        detach_keys=False,
    )
    loss.backward()
    values = {name: value.detach() for name, value in inputs.items()}

    def naive(**changes):
        return naive_loss(*{**values, **changes}.values(), 0.3, objective)

    torch.testing.assert_close(loss, naive())
    for name in ("query", "key"):
        expected = torch.empty(12, dtype=torch.float64)
        for i, step in enumerate(1e-5 * torch.eye(12, dtype=torch.float64)):
            step = step.view(4, 3)
            up, down = (naive(**{name: values[name] + s}) for s in (step, -step))
            expected[i] = (up - down) / 2e-5
        torch.testing.assert_close(
            inputs[name].grad.flatten(), expected, rtol=1e-6, atol=1e-8
        )
    assert inputs["candidates"].grad is None


def rank_share(rank, world_size, objective, detach_keys):
    """Loss and gradients of one rank's share of 6 images."""
    inputs = make(n=6, K=4, Q=10, d=5)
    share = slice(rank * 6 // world_size, (rank + 1) * 6 // world_size)
    for name in ("query", "key", "neighbor_index", "positiveness"):
        inputs[name] = inputs[name][share]
    leaves = ["query", "positiveness"] + ["key"] * (not detach_keys)
    for name in leaves:
        inputs[name].requires_grad_()
    loss = soft_neighbor_loss(
        **inputs,
        temperature=0.3,
        objective=objective,
        detach_keys=detach_keys,
    )
    loss.backward()
    everyone = make(n=6, K=4, Q=10, d=5)
    expected = naive_loss(
        *[value.detach() for value in inputs.values()],
        0.3,
        objective,
        all_key=everyone["key"],
        all_index=everyone["neighbor_index"],
    )
    torch.testing.assert_close(loss, expected)
    return loss.detach(), *[inputs[name].grad for name in leaves]


@pytest.mark.parametrize("detach_keys", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_does_not_depend_on_the_number_of_ranks(objective, detach_keys):
    loss, *gradients = rank_share(0, 1, objective, detach_keys)
    for world_size in (2, 3):
        results = run_on_ranks(
            world_size, rank_share, world_size, objective, detach_keys
        )
        losses, *shares = zip(*results, strict=True)
        torch.testing.assert_close(torch.stack(losses).mean(), loss)
        for expected, share in zip(gradients, shares, strict=True):
            # DistributedDataParallel averages: each rank's part counts 1 / world_size.
            torch.testing.assert_close(torch.cat(share) / world_size, expected)


def test_without_neighbors_it_is_info_nce():
    inputs = make(n=8, K=0, Q=4, d=6, dtype=torch.float32)
    z = F.normalize(inputs["query"], dim=1)
    y = F.normalize(inputs["key"], dim=1)
    expected = F.cross_entropy(z @ y.T / 0.2, torch.arange(8))
    for objective in OBJECTIVES:
        loss = soft_neighbor_loss(**inputs, temperature=0.2, objective=objective)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("zero_weights", [False, True])
def test_extreme_logits_stay_finite(objective, zero_weights):
    inputs = make(n=16, K=5, Q=12, d=4, dtype=torch.float32)
    inputs["query"] = -inputs["key"] * 1e4  # own logit is the smallest possible
    if zero_weights:
        inputs["positiveness"] *= 0
    inputs["query"].requires_grad_()
    inputs["positiveness"].requires_grad_()
    loss = soft_neighbor_loss(**inputs, temperature=0.01, objective=objective)
    loss.backward()
    expected = naive_loss(*[v.detach() for v in inputs.values()], 0.01, objective)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-4)
    assert inputs["query"].grad.isfinite().all()
    assert inputs["positiveness"].grad.isfinite().all()


def test_single_precision():
    exact = soft_neighbor_loss(**make(n=8, K=6, Q=20, d=16), temperature=0.2)
    inputs = make(n=8, K=6, Q=20, d=16, dtype=torch.float32)
    single = soft_neighbor_loss(**inputs, temperature=0.2)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-5)
    inputs["query"] = inputs["query"].bfloat16()
    rounded = soft_neighbor_loss(**inputs, temperature=0.2)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("K", [0, 30])
def test_autocast_reaches_products_with_other_images_neighbors_only(K):
    inputs = make(n=24, K=K, Q=2000, d=64, dtype=torch.float32)
    inputs["query"].requires_grad_()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = soft_neighbor_loss(**inputs, temperature=0.2)
        gradient = torch.autograd.grad(loss, inputs["query"])[0]
        results.append((loss.detach(), gradient))
    (exact, gradient), (rounded, rounded_gradient) = results
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=0)
    assert (rounded_gradient - gradient).norm() < 0.01 * gradient.norm()
    assert torch.equal(rounded, exact) == (K == 0)


@pytest.mark.parametrize("detach_keys", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_directions_and_views_together_equal_each_apart(objective, detach_keys):
    directions = [make(n=5, K=3, Q=9, d=4, seed=seed) for seed in (0, 1)]
    candidates = directions[0]["candidates"]
    g = torch.Generator().manual_seed(2)
    more_views = torch.randn(2, 5, 4, generator=g, dtype=torch.float64)
    more_weights = torch.rand(2, 5, 3, generator=g, dtype=torch.float64)
    settings = dict(
        candidates=candidates,
        temperature=0.3,
        objective=objective,
        detach_keys=detach_keys,
    )

    def stack(name, *more):
        parts = [direction[name] for direction in directions]
        return torch.cat([torch.stack(parts), *more], dim=1)

    together = soft_neighbor_loss(
        query=stack("query", more_views),
        positiveness=stack("positiveness", more_weights),
        key=stack("key"),
        neighbor_index=stack("neighbor_index"),
        **settings,
    )
    for i, direction in enumerate(directions):
        views = [
            (direction["query"], direction["positiveness"]),
            (more_views[i], more_weights[i]),
        ]
        expected = torch.stack(
            [
                soft_neighbor_loss(
                    query=query,
                    positiveness=weight,
                    key=direction["key"],
                    neighbor_index=direction["neighbor_index"],
                    **settings,
                )
                for query, weight in views
            ]
        )
        torch.testing.assert_close(together[i], expected.mean())


def test_no_matrix_of_all_logits():
    # n N (K + 1) logits would be 256 MB; what is held at a time is a chunk.
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            out = operation(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.size = max(self.size, out.numel())
            return out

    inputs = make(n=1024, K=63, Q=4096, d=8, dtype=torch.float32)
    inputs["query"].requires_grad_()
    with Largest() as largest:
        soft_neighbor_loss(**inputs, temperature=0.2).backward()
    assert largest.size <= 1024 * 1024  # keys [n, N]; the neighbors' d = 8 values fewer


@pytest.mark.gpu
@pytest.mark.parametrize("K, Q", [(5, 20000), (30, 4000)])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_on_a_gpu_without_waiting_for_it(K, Q, dtype):
    inputs = make(n=128, K=K, Q=Q, d=64, dtype=torch.float32)
    expected = soft_neighbor_loss(**inputs, temperature=0.2)
    inputs = {name: value.cuda() for name, value in inputs.items()}
    inputs["query"].requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
            loss = soft_neighbor_loss(**inputs, temperature=0.2)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    tolerance = 1e-5 if dtype is None else 2e-3
    torch.testing.assert_close(loss.cpu(), expected, rtol=tolerance, atol=0)


def test_keys_get_no_gradient():
    inputs = make(n=3, K=2, Q=4, d=5)
    for name in ("query", "key", "candidates"):
        inputs[name].requires_grad_()
    soft_neighbor_loss(**inputs, temperature=1.0).backward()
    assert inputs["query"].grad.abs().sum() > 0
    assert inputs["key"].grad is None
    assert inputs["candidates"].grad is None


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(temperature=0.0), r"temperature .*model\.head\.temperature.*=0\.0"),
        (dict(temperature=float("nan")), "temperature"),
        (
            dict(objective="sum"),
            r"'sum' is unknown.*log_of_sum.*model\.head\.objective",
        ),
        (dict(own_positiveness=0.0), "own_positiveness"),
        (dict(key=torch.zeros(3, 6)), r"query \[3, 5\] and key \[3, 6\]"),
        (dict(neighbor_index=torch.zeros(2, 2, dtype=int)), r"must be \[n, K\]"),
        (dict(positiveness=torch.zeros(3, 1)), r"positiveness \[3, 1\]"),
        (dict(candidates=torch.zeros(4, 7)), r"candidates \[4, 7\].*queue\.dim"),
    ],
)
def test_bad_input(change, message):
    inputs = {**make(n=3, K=2, Q=4, d=5), "temperature": 0.2, **change}
    with pytest.raises(ValueError, match=message):
        soft_neighbor_loss(**inputs)
