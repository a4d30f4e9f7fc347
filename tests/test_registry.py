import mmengine.registry
import mmpretrain.registry
import pytest
from helpers.tiny import build_runner, tiny_config
from mmengine.registry import DefaultScope, Registry

import snclr_mm.registry
from snclr_mm.models import SNCLR, NeighborQueue


@pytest.mark.parametrize("scope", ["snclr_mm", "mmpretrain", "mmengine"])
def test_components_are_found_from_any_scope(scope):
    queue = dict(length=4, dim=2)
    with DefaultScope.overwrite_default_scope(scope):
        for name in ("snclr_mm.NeighborQueue", "mmpretrain.NeighborQueue"):
            built = mmengine.registry.MODELS.build(dict(type=name, **queue))
            assert type(built) is NeighborQueue
        if scope != "mmengine":
            built = mmengine.registry.MODELS.build(dict(type="NeighborQueue", **queue))
            assert type(built) is NeighborQueue


def test_the_scope_knows_the_names_of_the_libraries():
    registry = snclr_mm.registry
    assert registry.MODELS.get("SNCLR") is SNCLR
    assert registry.MODELS.get("snclr_mm.models.snclr.SNCLR") is SNCLR
    for name, key in (
        ("MODELS", "ResNet"),
        ("HOOKS", "EMAHook"),
        ("METRICS", "DumpResults"),
    ):
        expected = getattr(mmpretrain.registry, name).get(key)
        assert expected is not None
        assert getattr(registry, name).get(key) is expected
    assert registry.MODELS.get("snclr_mm.Nothing") is None
    assert registry.STRATEGIES.get("ResumableFSDPStrategy") is not None


def test_each_registry_of_mmpretrain_is_there():
    """Else MMEngine would look names of that kind up in its own alone."""
    expected = {
        name
        for name, value in vars(mmpretrain.registry).items()
        if isinstance(value, Registry) and not name.startswith("MMENGINE_")
    }
    assert expected and all(hasattr(snclr_mm.registry, name) for name in expected)


def test_training_in_the_scope(digits_root, tmp_path):
    cfg = tiny_config(digits_root, tmp_path, default_scope="snclr_mm")
    cfg.train_cfg.max_epochs = 1
    cfg.model.type = "snclr_mm.SNCLR"
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 4
