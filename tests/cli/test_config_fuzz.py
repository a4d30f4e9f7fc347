"""Every setting of a recipe, set to values that make no sense."""

from copy import deepcopy

import pytest
from helpers.tiny import build_runner, tiny_config

from snclr_mm.cli.config_checks import check_config, explain_build

VALUES = [None, float("nan"), float("inf"), -1, 1e30, 1e-38, "x", "False", [], [-1]]
PARTS = (
    "model", "data_preprocessor", "train_dataloader", "optim_wrapper",
    "param_scheduler", "train_cfg", "custom_hooks", "default_hooks",
)  # fmt: skip
#: What makes sense after all: "never", "all", "as small as nothing", "not given".
SENSIBLE = {
    ("interval", "-1"), ("max_keep_ckpts", "-1"), ("indices", "None"),
    ("weight_decay", "1e-38"), ("collate_fn", "None"), ("mean", "None"),
    ("std", "None"), ("mean", "[-1]"), ("base_momentum", "1e-38"),
    ("val_interval", "None"),
    # It counts the images before it trains.
    ("indices", "-1"), ("indices", "[]"), ("indices", "[-1]"),
}  # fmt: skip


def leaves(value, key=()):
    """The keys of all settings that are no dicts."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name != "_scope_":
                yield from leaves(item, (*key, name))
    elif isinstance(value, list | tuple) and any(isinstance(x, dict) for x in value):
        for i, item in enumerate(value):
            yield from leaves(item, (*key, i))
    else:
        yield key


def mutations(recipe):
    """Configs in which one setting is nonsense, with its key and value."""
    for key in [key for part in PARTS for key in leaves(recipe[part], (part,))]:
        *parents, name = key
        values = ["Nothing", 3, None] if name == "type" else VALUES
        if name == "data_root":  # a folder that is missing would be downloaded to
            values = [value for value in VALUES if not isinstance(value, str)]
        for value in [*values, KeyError]:
            cfg = deepcopy(recipe)
            place = cfg
            for parent in parents:
                place = place[parent]
            if value is not KeyError:
                place[name] = value
            elif isinstance(name, str) and len(name) > 3:
                place[f"{name[:-2]}{name[-1]}"] = place.pop(name)  # misspelt
            else:
                continue
            yield cfg, key, value


@pytest.mark.slow
def test_nonsense_is_refused_and_named(digits_root, tmp_path, monkeypatch):
    recipe = tiny_config(
        digits_root,
        tmp_path,
        train_cfg__max_epochs=1,
        train_dataloader__dataset__indices=32,
        optim_wrapper__clip_grad=dict(max_norm=1.0),
    )
    count, obscure, accepted = 0, [], []
    for cfg, key, value in mutations(recipe):
        count += 1
        try:
            check_config(cfg)
            with explain_build(cfg):
                build_runner(cfg).train()
        except Exception as error:
            words = [str(k) for k in key if isinstance(k, str)]
            # A misspelt name is named as it was written.
            words += [f"{word[:-2]}{word[-1]}" for word in words]
            sensible = (key[-1], repr(value)) in SENSIBLE
            if not (sensible or any(word in str(error) for word in words)):
                obscure.append((key, value, f"{type(error).__name__}: {error}"))
        else:
            # MMPretrain's VisualizationHook takes any argument.
            anything = key[-1] == "enable" and value is KeyError
            if not anything and (key[-1], repr(value)) not in SENSIBLE:
                accepted.append((key, value))
    assert count >= 500
    assert not obscure, "\n".join(map(str, obscure))
    assert not accepted, "\n".join(map(str, accepted))
