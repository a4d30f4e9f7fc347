"""Checks of a config's names, types and ranges, before anything is built or loaded."""

import inspect
import math
import re
import types
import typing
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from numbers import Integral, Real
from typing import NamedTuple

import mmengine.registry
import mmpretrain.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader


class Range(NamedTuple):
    """Numbers that a setting allows; ``whole`` leaves out fractions."""

    low: float
    high: float = math.inf
    whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high == math.inf:
            return f"{kind} of at least {self.low:g}"
        return f"{kind} from {self.low:g} to {self.high:g}"

    def allows(self, value) -> bool:
        """Whether ``value`` is such a number; True and False are none."""
        return (
            _is_number(value, Integral if self.whole else Real)
            and self.low <= value <= self.high
            and math.isfinite(value)
        )


POSITIVE, COUNT, SHARE = Range(1, whole=True), Range(0, whole=True), Range(0, 1)
#: What settings of these names may be, in components of any library. A list is checked
#: number by number.
RANGES = {
    **dict.fromkeys(
        ["accumulative_counts", "base_batch_size", "base_channels", "batch_size",
         "dim", "depth", "embed_dims", "end", "feat_dim", "hid_channels",
         "hidden_channels", "in_channels", "k", "length", "max_epochs", "max_iters",
         "dilations", "max_skipped_steps", "num_classes", "num_layers",
         "num_prototypes", "num_stages", "num_views", "out_channels", "queue_length",
         "stem_channels", "strides", "T_max", "val_interval"],
        POSITIVE,
    ),
    **dict.fromkeys(["begin", "num_neighbors", "num_workers", "start_epoch"], COUNT),
    **dict.fromkeys(
        ["base_momentum", "drop_path_rate", "drop_rate", "end_factor", "momentum",
         "prob"],
        SHARE,
    ),
    **dict.fromkeys(["interval", "max_keep_ckpts"], Range(-1, whole=True)),
    "start_factor": Range(1e-12, 1),
    # A softmax of cosines divided by less than 0.001 is a maximum, and overflows in
    # half precision; one divided by more than 1000 is uniform.
    **dict.fromkeys(["gamma", "own_positiveness", "target_temperature", "temperature"],
        Range(1e-3, 1e3)),
    "loss_weight": Range(1e-12, 1e6),
    "lr": Range(1e-12, 1e3),
    "eta_min": Range(0, 1e3),
    "std": Range(1e-12, 1e6),
    "weight_decay": Range(0, 10),
    "max_norm": Range(1e-12, 1e12),
}  # fmt: skip
#: Settings of which a list makes no sense.
SINGLE = ("interval", "max_keep_ckpts")
#: Scopes whose components are not looked up: only numbers are checked there.
LIBRARIES = ("mmdet", "mmseg")
#: Keys whose dicts name no component, though they may have a ``type``.
PLAIN = {"clip_grad", "paramwise_cfg", "metainfo", "policies"}
#: Beside the arguments of the Runner, what is read at a config's top.
TOP_KEYS = {
    "activation_checkpointing", "auto_scale_lr", "compile", "data_preprocessor",
    "efficient_conv_bn_eval", "find_unused_parameters", "model_wrapper_cfg",
    "runner_type", "strategy", "sync_bn",
}  # fmt: skip
ANY = "**"
SEQUENCES = (list, tuple, Sequence)
#: The types that are checked, and their names for people.
NAMES = {
    int: "a whole number", float: "a number", bool: "True or False", str: "a string",
    dict: "a dict", type(None): "None", **dict.fromkeys(SEQUENCES, "a list"),
}  # fmt: skip


class Argument(NamedTuple):
    """What an argument of a component may be, as far as its signature tells.

    Attributes:
        types (tuple): Annotated types; empty where nothing is known.
        own (bool): Whether the component is of this project. Annotations of other
            libraries are not always true: there, any number will do where one is
            expected, and so will a list of them.
    """

    types: tuple = ()
    own: bool = True

    def allows(self, value) -> bool:
        """Whether ``value`` is of such a type; NaN is no number."""
        fits = any(_is_a(value, hint, self.own) for hint in self.types)
        if not fits and not self.own and value and isinstance(value, list | tuple):
            return all(self.allows(item) for item in value)
        return fits or not self.types

    def __str__(self) -> str:
        return " or ".join(dict.fromkeys(NAMES[_origin(hint)] for hint in self.types))


#: What builders take for themselves, from any component.
RESERVED = {
    **dict.fromkeys(
        ["type", "_scope_", "init_cfg", "priority", "constructor", "paramwise_cfg"],
        Argument(),
    ),
    **dict.fromkeys(["convert_to_iter_based", "requires_grad"], Argument((bool,))),
    "bias": Argument(),  # a name in some of MMPretrain's networks
    **dict.fromkeys(["data_root", "ann_file"], Argument((str, type(None)))),
    **dict.fromkeys(["pipeline", "transforms"], Argument((list, tuple))),
    "num_batch_per_epoch": Argument((int,)),  # of dataloaders
}


def check_config(cfg: Config) -> None:
    """Check every component that a config names.

    The names of components and of their arguments, numbers whose names
    :data:`RANGES` knows, and the types of arguments. Where MMDetection or
    MMSegmentation is the default scope, numbers alone.

    Args:
        cfg (Config): Complete. Nothing is changed.

    Raises:
        ValueError: That names the config key, its value, what is allowed, and the
            nearest name that exists.
    """
    names = cfg.get("default_scope") not in LIBRARIES
    for key in _top_keys() & cfg.keys():
        _check(key, cfg[key], names)


def merge_options(cfg: Config, options: dict | None) -> None:
    """Merge ``--cfg-options``, each of which must begin with a key that is read.

    Variables of the config's file are not: they have been used.

    Raises:
        ValueError: For another key, with those that end like it, or the nearest one.
    """
    known = _top_keys()
    for key in options or {}:
        first = key.split(".")[0]
        if first in known:
            continue
        if first not in cfg:
            raise ValueError(
                f"--cfg-options {key}: the config has no key {first!r}"
                f"{_suggest(first, known)}."
            )
        parts = {name: cfg[name] for name in known & cfg.keys()}
        places = [place for place, _ in _settings(parts) if place.endswith(f".{key}")]
        raise ValueError(
            f"--cfg-options {key}: {first!r} was used when the config's file was read; "
            "now set the keys that are made of it"
            + (f" ({', '.join(places[:3])})" if places else "")
            + ", or change the file."
        )
    cfg.merge_from_dict(options or {})


@contextmanager
def explain_build(cfg: Config) -> Iterator[None]:
    """Let an error that says nothing name the component, and the check, that failed.

    Raises:
        ValueError: In place of the errors that assertions, and operations on values of
            another type or length, end in.
    """
    try:
        yield
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        if "config key" in str(error) or "=" in str(error):
            raise  # says enough
        keys = _find_keys(cfg)
        frames = inspect.getinnerframes(error.__traceback__)
        for info in reversed(frames):
            name = type(info.frame.f_locals.get("self")).__name__
            if info.function == "__init__" and name in keys:
                line = "".join(frames[-1].code_context or []).strip()
                raise ValueError(
                    f"{' or '.join(keys[name])} (type {name}) cannot be built: "
                    f"{type(error).__name__} {error} in {line!r}."
                ) from error
        raise


def _find_keys(cfg: dict) -> dict[str, list[str]]:
    """The keys of each type of component."""
    found = {}
    for key, item in _settings(cfg):
        place, _, name = key.rpartition(".")
        if name == "type" and isinstance(item, str):
            found.setdefault(item, []).append(place)
    return found


def _settings(node, key: str = "") -> Iterator[tuple[str, object]]:
    """All config keys and what they hold, each before what lies below."""
    for name, item in node.items() if hasattr(node, "items") else enumerate(node):
        yield f"{key}{name}", item
        if isinstance(item, dict | list | tuple):
            yield from _settings(item, f"{key}{name}.")


def _top_keys() -> set[str]:
    return {*inspect.signature(Runner.__init__).parameters, *TOP_KEYS} - {"self"}


def _check(key: str, value, names: bool) -> None:
    """Check the value of a key, and what lies below; ``names`` of components too."""
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check(f"{key}.{i}", item, names)
    if not isinstance(value, dict):
        return
    last = key.rpartition(".")[-1]
    if last.endswith("dataloader"):
        _check_arguments(key, value, _arguments(DataLoader))
    elif "type" in value:
        if not (callable(value["type"]) or isinstance(value["type"], str)):
            raise ValueError(f"{key}.type={value['type']!r} must be a name.")
        if names:
            _check_component(key, value)
    elif last in ("collate_fn", "dataset", "optimizer", "sampler"):
        raise ValueError(f"{key} has no type.")
    elif key == "train_cfg":  # MMEngine chooses the loop by by_epoch
        loops = map(_arguments, (EpochBasedTrainLoop, IterBasedTrainLoop))
        by_epoch = {"by_epoch": Argument((bool,))}
        _check_arguments(key, value, dict(ChainMap(by_epoch, *loops)))
        if "by_epoch" not in value:
            raise ValueError(f"{key} has no type: give it one, or by_epoch.")
    elif key.startswith("default_hooks."):
        raise ValueError(f"{key} has no type: MMEngine has no default hook {last!r}.")
    for name, item in value.items():
        allowed = RANGES.get(name)
        several = isinstance(item, list | tuple) and name not in SINGLE
        for number in (item or [None]) if several else [item]:
            unset = (item is None and last != "clip_grad") or isinstance(number, dict)
            if allowed and not unset and not allowed.allows(number):
                raise ValueError(f"{key}.{name}={item!r} must be {allowed}.")
        _check(f"{key}.{name}", item, names and name not in PLAIN)


def _check_component(key: str, cfg: dict) -> None:
    name = cfg["type"]
    components = [name] if callable(name) else _find(name)
    if not components:
        known = {name for registry in _registries() for name in registry.module_dict}
        raise ValueError(
            f"{key}.type={name!r} is not registered"
            f"{_suggest(name.rpartition('.')[-1], known)}."
        )
    # Of one name there may be several; where it stands decides, which is not known.
    _check_arguments(key, cfg, dict(ChainMap(*map(_arguments, components))))


def _check_arguments(key: str, cfg: dict, arguments: dict[str, Argument]) -> None:
    arguments = arguments | RESERVED
    for name, value in cfg.items():
        if name not in arguments:
            if ANY in arguments:
                continue
            kind = f" of {cfg['type']}" if "type" in cfg else ""
            raise ValueError(
                f"{key}.{name} is no setting{kind}{_suggest(name, {*arguments})}."
            )
        if not arguments[name].allows(value):
            raise ValueError(f"{key}.{name}={value!r} must be {arguments[name]}.")


def _registries() -> Iterator[Registry]:
    for module in (mmpretrain.registry, mmengine.registry):
        yield from (v for v in vars(module).values() if isinstance(v, Registry))


@cache
def _find(name: str) -> tuple[Callable, ...]:
    """All that is registered by this name, in any registry."""
    found = dict.fromkeys(registry.get(name) for registry in _registries())
    return tuple(component for component in found if component is not None)


@cache
def _arguments(component: Callable) -> dict[str, Argument]:
    """The arguments by their names; with :data:`ANY`, if a component takes others."""
    if not inspect.isclass(component):
        arguments, keywords = _read_signature(component)
        return arguments | ({ANY: Argument()} if keywords else {})
    arguments = {}
    for cls in inspect.getmro(component)[:-1]:
        init = vars(cls).get("__init__")
        if init is None:
            continue
        own, keywords = _read_signature(init)
        arguments = own | arguments
        if not keywords:
            return arguments
        # What is not handed on to the next class is taken for something else.
        calls = rf"super\([^)]*\)\.__init__\([^)]*\*\*{keywords}"
        if not re.search(calls, inspect.getsource(init)):
            return arguments | {ANY: Argument()}
    return arguments


def _read_signature(function: Callable) -> tuple[dict[str, Argument], str | None]:
    """The arguments of a function, and the name of its ``**kwargs``."""
    own = function.__module__.startswith("snclr_mm.")
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    arguments, keywords = {}, None
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            keywords = name
        elif name != "self":
            arguments[name] = Argument(_types(hints.get(name), parameter, own), own)
    return arguments, keywords


def _types(hint, parameter: inspect.Parameter, own: bool) -> tuple:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    hints = typing.get_args(hint) if union else (hint,)
    default = type(parameter.default)
    known = all(_origin(hint) in NAMES for hint in hints)
    if not own:
        if {str, dict, list} & {_origin(hint) for hint in hints}:
            return ()
        if default in (bool, int, float, tuple):
            return (default, *hints) if known else (default,)
    if not known:
        return ()
    return (*hints, type(None)) if parameter.default is None else hints


def _origin(hint) -> object:
    return typing.get_origin(hint) or hint


def _is_number(value, kind: type = Real) -> bool:
    number = isinstance(value, kind) and not isinstance(value, bool)
    return number and not math.isnan(value)


def _is_a(value, hint, strict: bool) -> bool:
    kind = _origin(hint)
    if kind in (int, float):
        return _is_number(value, Integral if kind is int and strict else Real)
    if kind not in SEQUENCES:
        return isinstance(value, kind)
    items = [hint for hint in typing.get_args(hint) if hint is not ...]
    unknown = not items or any(_origin(item) not in NAMES for item in items)
    return isinstance(value, list | tuple) and (
        unknown or all(any(_is_a(v, item, strict) for item in items) for v in value)
    )


def _suggest(name: str, known: set[str]) -> str:
    spelled = {other.lower(): other for other in known}
    close = [spelled[s] for s in get_close_matches(name.lower(), spelled, n=2)]
    return f"; did you mean {' or '.join(close)}?" if close else ""
