from contextlib import ExitStack

import numpy as np
import pytest
import torch
from helpers.diagnostics import find, scalar

from snclr_mm.engine import CollapseHook

MEASURES = ("rankme", "std", "std_ratio")


def reference(features):
    """RankMe, SimSiam's deviation and its ratio, in NumPy, float64."""
    x = np.asarray(features, dtype=np.float64)
    p = np.linalg.svd(x, compute_uv=False)
    p = p / p.sum() + 1e-7
    std = (x / np.linalg.norm(x, axis=1, keepdims=True)).std(axis=0, ddof=1).mean()
    return np.exp(-(p * np.log(p)).sum()), std, std * np.sqrt(x.shape[1])


def observed(step):
    return {
        "backbone": step["backbone"][0].mean(dim=(2, 3)),
        "projection": step["neck"][0],
    }


def expected(steps, name):
    """Values of the measurements after steps 4 and 8, of three batches each."""
    features = [observed(step)[name] for step in steps]
    parts = [torch.cat(features[i : i + 3]) for i in (1, 5)]
    values = zip(*(reference(part) for part in parts), strict=True)
    return dict(zip(MEASURES, values, strict=True))


@pytest.mark.parametrize("name", ["backbone", "projection"])
@pytest.mark.parametrize("scenario", ["plain", "partly labeled"])
def test_equals_numpy(watched, scenario, name):
    runner = watched(scenario)
    values = expected(find(runner, "Recorder").steps, name)
    for measure in MEASURES:
        logged = scalar(runner, f"{name}_{measure}")
        assert logged == pytest.approx(values[measure], rel=1e-4)


def test_over_all_ranks(watched_ranks):
    results, _ = watched_ranks(2, "shared")
    features = [[observed(s)["projection"] for s in r["steps"]] for r in results]
    batches = [torch.cat(parts) for parts in zip(*features, strict=True)]
    value = reference(torch.cat(batches[1:4]))[0]
    for result in results:
        logged = result["scalars"]["projection_rankme"][0]
        assert logged == pytest.approx(value, rel=1e-3)


def test_a_model_without_neck():
    model = torch.nn.Module()
    model.data_preprocessor = torch.nn.Identity()
    model.backbone = torch.nn.AvgPool2d(4)
    model.neck = None
    hook = CollapseHook(interval=1)
    images = torch.randn(6, 3, 4, 4)
    with ExitStack() as stack:
        hook._attach(model, stack)
        model.data_preprocessor({"inputs": images})
        model.backbone(images)
    scalars = hook._measure(type("", (), {"iter": 0}), None)
    assert set(scalars) == {f"backbone_{measure}" for measure in MEASURES}


def test_bad_settings():
    with pytest.raises(ValueError, match="num_batches=0 .*custom_hooks"):
        CollapseHook(num_batches=0)
    with pytest.raises(ValueError, match=r"num_batches=9 .*CollapseHook\.interval=8"):
        CollapseHook(interval=8, num_batches=9)
