from copy import deepcopy

import mmpretrain
import pytest
from helpers.command import load_tool
from helpers.tiny import CONFIG, REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from snclr_mm.cli import check_config, merge_options
from snclr_mm.cli.config_checks import RANGES

STOCK = [
    "barlowtwins/barlowtwins_resnet50_8xb256-coslr-300e_in1k.py",
    "byol/byol_resnet50_16xb256-coslr-200e_in1k.py",
    "dinov2/vit-small-p14_dinov2-pre_headless.py",
    "mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py",
    "mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py",
    "mocov3/mocov3_vit-small-p16_16xb256-amp-coslr-300e_in1k.py",
    "simclr/simclr_resnet50_8xb32-coslr-200e_in1k.py",
    "simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py",
    "swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.py",
    "resnet/resnet50_8xb32_in1k.py",
    "swin_transformer/swin-tiny_16xb64_in1k.py",
]


@pytest.fixture(scope="module")
def recipe():
    cfg = Config.fromfile(CONFIG)
    cfg.optim_wrapper.clip_grad = dict(max_norm=1.0)
    return cfg


@pytest.mark.parametrize("path", STOCK)
def test_accepts_stock_configs(path):
    check_config(Config.fromfile(f"{mmpretrain.__path__[0]}/.mim/configs/{path}"))


@pytest.mark.parametrize(
    "key, value, message",
    [
        # types
        ("model.head.detach_keys", "False", "'False' must be True or False"),
        ("model.head.queue.sync", 3, "model.head.queue.sync=3 must be True or False"),
        ("model.head.queue.length", "4096", "'4096' must be a whole number"),
        ("model.head.queue.length", None, "None must be a whole number"),
        ("model.head.num_neighbors", True, "True must be a whole number"),
        ("model.head.num_neighbors", 2.5, "2.5 must be a whole number"),
        ("model.head.attention.gamma", [1.0, "a"], "must be a number or a list"),
        ("model.neck.hid_channels", None, "model.neck.hid_channels=None must be"),
        ("model.neck.with_last_bn_affine", "no", "'no' must be True or False"),
        ("model.backbone.norm_eval", 3, "norm_eval=3 must be True or False"),
        ("custom_hooks.0.start_epoch", float("nan"), "=nan must be a whole number"),
        ("train_dataloader.num_workers", None, "num_workers=None must be a whole"),
        ("train_dataloader.persistent_workers", "x", "must be True or False"),
        ("param_scheduler.0.by_epoch", "False", "'False' must be True or False"),
        # ranges
        ("model.head.temperature", 1e-30, "1e-30 must be a number from 0.001 to 1000"),
        ("model.head.attention.gamma", 1e-38, "gamma=1e-38 must be a number from"),
        ("model.head.attention.gamma", [1.0, -1.0], "must be a number from 0.001"),
        ("model.neck.out_channels", 0, "must be a whole number of at least 1"),
        ("model.backbone.depth", "18", "'18' must be a whole number of at least 1"),
        ("optim_wrapper.clip_grad.max_norm", -1, "max_norm=-1 must be a number from"),
        ("optim_wrapper.optimizer.lr", 1e30, r"lr=1e\+30 must be a number from"),
        ("optim_wrapper.optimizer.lr", float("nan"), "lr=nan must be a number"),
        ("optim_wrapper.optimizer.weight_decay", -1, "weight_decay=-1 must be"),
        ("train_cfg.max_epochs", 0, "train_cfg.max_epochs=0 must be a whole number"),
        ("default_hooks.checkpoint.interval", [-1], r"interval=\[-1\] must be a whole"),
        ("train_dataloader.batch_size", 0.5, "batch_size=0.5 must be a whole number"),
        # names
        ("model.head.num_neighbours", 5, "did you mean num_neighbors"),
        ("model.head.queue.lenght", 5, "queue.lenght is no setting of NeighborQueue"),
        ("model.type", "SNCRL", "model.type='SNCRL' is not registered; did you mean"),
        ("model.type", None, "model.type=None must be a name"),
        ("optim_wrapper.optimizer.type", "Adamw", "not registered; .*AdamW"),
        ("optim_wrapper.optimizer.learning_rate", 1, "learning_rate is no setting"),
        ("train_dataloader.num_worker", 1, "did you mean num_workers"),
        ("train_dataloader.dataset.pipeline.0.type", "LoadImg", "LoadImage"),
        ("default_hooks.chekpoint.interval", 1, "default_hooks.chekpoint has no type"),
        ("custom_hooks.0.min_fil", 1, "did you mean min_fill"),
    ],
)
def test_refuses(recipe, key, value, message):
    cfg = deepcopy(recipe)
    *parents, last = key.split(".")
    place = cfg
    for name in parents:
        place = place[int(name)] if name.isdigit() else place.setdefault(name, {})
    place[last] = value
    with pytest.raises(ValueError, match=message) as error:
        check_config(cfg)
    assert key.rpartition(".")[0] in str(error.value)


def test_a_loop_without_type(recipe):
    cfg = deepcopy(recipe)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2)
    check_config(cfg)
    cfg.train_cfg = dict(max_epochs=2)
    with pytest.raises(ValueError, match="train_cfg has no type: give .* or by_epoch"):
        check_config(cfg)
    cfg.train_cfg = dict(tye="EpochBasedTrainLoop", max_epochs=2)
    with pytest.raises(ValueError, match="train_cfg.tye is no setting; did you mean"):
        check_config(cfg)


def test_options_of_unknown_keys(recipe):
    cfg = deepcopy(recipe)
    merge_options(cfg, {"model.head.num_neighbors": 5, "resume": True})
    assert (cfg.model.head.num_neighbors, cfg.resume) == (5, True)
    merge_options(cfg, None)
    with pytest.raises(ValueError, match="no key 'modle'; did you mean model"):
        merge_options(cfg, {"modle.head.num_neighbors": 5})


def test_options_for_variables_of_the_file():
    """They have been used by now: to set them would change nothing."""
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r50_8xb256.py")
    with pytest.raises(
        ValueError, match=r"was used when .* \(.*model.head.temperature"
    ):
        merge_options(cfg, {"temperature": 0.2})
    with pytest.raises(
        ValueError, match="'views' was used when the config's file was read"
    ):
        merge_options(cfg, {"views.0.crop.scale": 160})
    merge_options(cfg, {"compile": True, "activation_checkpointing": ["backbone"]})


def test_options_without_a_value(capsys):
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--cfg-options", nargs="+", action=load_tool("options.py").CfgOptions
    )
    assert parser.parse_args(["--cfg-options", "a.b=1"]).cfg_options == {"a.b": 1}
    with pytest.raises(SystemExit):
        parser.parse_args(["--cfg-options", "a.b=1", "foo"])
    assert "--cfg-options foo: must be key=value" in capsys.readouterr().err


NUMBERS = st.integers() | st.floats()
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(data=st.data())
def test_generated_values_are_accepted_or_named(recipe, data):
    """At any key, also one that is no setting: no other error than ours."""
    cfg = deepcopy(recipe)
    place, key = cfg._cfg_dict, []
    while True:
        names = list(place) if isinstance(place, dict) else range(len(place))
        key.append(data.draw(st.sampled_from(names)))
        value = place[key[-1]]
        inner = isinstance(value, dict | list | tuple) and len(value)
        if not inner or data.draw(st.integers(0, 4)) == 0:
            break
        place = value
    if isinstance(place, dict) and data.draw(st.booleans()):
        key[-1] = data.draw(st.text(max_size=12))
    if isinstance(place, tuple):
        return
    place[key[-1]] = data.draw(ANYTHING)
    try:
        check_config(cfg)
    except ValueError as error:
        assert str(key[0]) in str(error)
        assert "must be" in str(error) or "no " in str(error) or "not" in str(error)


def numbers_of(node, key=""):
    """(dict, its key, name) of each number whose range is known."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        if isinstance(value, dict | list | tuple):
            yield from numbers_of(value, f"{key}{name}.")
        elif name in RANGES and value is not None:
            yield node, key, name


@given(data=st.data())
def test_generated_numbers_out_of_range_are_refused(recipe, data):
    cfg = deepcopy(recipe)
    for key in ("view_pipeline", "train_pipeline", "test_pipeline"):
        del cfg._cfg_dict[key]  # nothing reads them
    place, key, name = data.draw(st.sampled_from(list(numbers_of(cfg._cfg_dict))))
    numbers = NUMBERS.filter(lambda number: not RANGES[name].allows(number))
    place[name] = data.draw(st.text(max_size=8) | st.booleans() | numbers)
    with pytest.raises(ValueError, match=f"^{key}{name}=.* must be"):
        check_config(cfg)


@given(
    options=st.dictionaries(
        st.text("abcdefghijklmnopqrstuvwxyz_.", min_size=1, max_size=12), ANYTHING
    )
)
def test_generated_options_of_unknown_keys(recipe, options):
    cfg = deepcopy(recipe)
    with pytest.raises(ValueError, match="--cfg-options .*the config has no key"):
        merge_options(cfg, {**options, "modle.x": 1})
    assert cfg.to_dict() == recipe.to_dict()
