"""Checkpoints that attack, are broken, or were altered, made from a good one."""

import collections
import os
import pickle
import zipfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial, wraps
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

#: What a crafted file does when something in it is run: the environment names a file.
MARKER = "SNCLR_TEST_MARKER"
CODE = f"open(__import__('os').environ[{MARKER!r}], 'w').close()"


class Bad(NamedTuple):
    """A kind of checkpoint.

    Attributes:
        write (Callable): (good checkpoint, path) -> None.
        refused (str): ``'always'``, also where it is only read; ``'fit'`` where its
            weights meet a model; ``'resume'`` where a run goes on from it; ``'never'``:
            it is harmless, once it is read as data.
    """

    write: Callable[[dict, Path], None]
    refused: str


BAD: dict[str, Bad] = {}


def _kind(refused: str):
    def add(function):
        BAD[function.__name__] = Bad(function, refused)
        return function

    return add


def _altered(refused: str):
    """A kind by a function that changes the good checkpoint, or returns another."""

    def add(change):
        @wraps(change)
        def write(good, path):
            checkpoint = deepcopy(good)
            changed = change(checkpoint)
            torch.save(checkpoint if changed is None else changed, path)

        BAD[change.__name__] = Bad(write, refused)
        return change

    return add


class Call:
    """Pickled as a call of any function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced if self.reduced[2] is not None else self.reduced[:2]


# Pickles that call functions


def _add_calls():
    import builtins
    import ctypes
    import functools
    import importlib
    import operator
    import runpy
    import subprocess

    import mmengine

    touch = f"touch ${MARKER}"
    calls = {
        "os_system": (os.system, touch),
        "exec": (exec, CODE),
        "eval": (eval, CODE),
        "compile": (compile, CODE, "x", "exec"),
        "import": (__import__, "this"),
        "import_module": (importlib.import_module, "antigravity"),
        "popen": (subprocess.Popen, ["sh", "-c", touch]),
        "partial": (partial, os.system, touch),
        "attrgetter": (operator.attrgetter, "system"),
        "methodcaller": (operator.methodcaller, "system", touch),
        "reduce": (functools.reduce, operator.add, [[1], [2]]),
        "run_path": (runpy.run_path, "/dev/null"),
        "getattr_class": (getattr, HistoryBuffer, "__init__"),
        "getattr_builtin": (getattr, Call(__import__, "os"), "system"),
        "getattr_subclasses": (getattr, object, "__subclasses__"),
        "setattr": (setattr, HistoryBuffer, "mean", None),
        "builtins_print": (builtins.print, "ran"),
        "open": (open, "/dev/null"),
        "torch_load": (torch.load, "/dev/null"),
        "hub_load": (torch.hub.load, "nobody/none", "none"),
        "config_fromstring": (Config.fromstring, CODE, ".py"),
        "config_fromfile": (mmengine.Config.fromfile, "/dev/null"),
        "library": (ctypes.CDLL, "/dev/null"),
    }
    for i, (name, (function, *arguments)) in enumerate(calls.items()):
        place = ("meta", "state_dict", "message_hub", "optimizer")[i % 4]

        def write(good, path, call=(function, *arguments), place=place):
            torch.save({**good, place: {**good[place], "x": Call(*call)}}, path)

        BAD[name] = Bad(write, "always")


_add_calls()


@_kind("always")
def bare_pickle(good, path):
    path.write_bytes(pickle.dumps({"state_dict": Call(os.system, f"touch ${MARKER}")}))


@_kind("always")
def bare_pickle_of_protocol_0(good, path):
    path.write_bytes(pickle.dumps({"state_dict": Call(eval, CODE)}, protocol=0))


@_kind("always")
def file_of_old_torch(good, path):
    checkpoint = {**good, "x": Call(eval, CODE)}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)


@_kind("always")
def whole_module(good, path):
    torch.save(torch.nn.Linear(2, 2), path)


@_kind("always")
def torchscript(good, path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


# NumPy's own functions would take these bytes for pointers.


@_altered("always")
def numpy_objects_of_raw_bytes(checkpoint):
    checkpoint["meta"]["x"] = Call(np.ndarray, (1,), "O", b"\x01" * 8)


@_altered("always")
def numpy_scalar_of_objects(checkpoint):
    scalar = np.float64(1).__reduce__()[0]
    checkpoint["meta"]["x"] = Call(scalar, np.dtype("O"), b"\x01" * 8)


@_altered("always")
def numpy_dtype_with_fields(checkpoint):
    state = (3, "<", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 8, 0)
    dtype = Call(np.dtype, "f8", False, True, state=state)
    rebuild = np.zeros(1).__reduce__()[0]
    checkpoint["meta"]["x"] = Call(
        rebuild, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, b"\x01" * 8)
    )


@_altered("always")
def numpy_array_without_values(checkpoint):
    rebuild = np.zeros(1).__reduce__()[0]
    state = (1, (10**6,), np.dtype("f8"), False, b"")
    checkpoint["meta"]["x"] = Call(rebuild, np.ndarray, (0,), b"b", state=state)


@_altered("always")
def own_methods(checkpoint):
    state = collections.OrderedDict(checkpoint["state_dict"])
    state.items = set
    checkpoint["state_dict"] = state


# Text that MMEngine would run


@_altered("never")
def config_text(checkpoint):
    checkpoint["meta"]["config"] = CODE


@_altered("never")
def cfg_text(checkpoint):
    checkpoint["meta"]["cfg"] = CODE
    checkpoint["message_hub"]["runtime_info"]["cfg"] = CODE


@_altered("never")
def cfg_nested_deeply(checkpoint):
    checkpoint["meta"]["cfg"] = f"model = {'(' * 150}{')' * 150}\0"


# Files


@_kind("always")
def truncated(good, path):
    torch.save(good, path)
    os.truncate(path, path.stat().st_size // 2)


@_kind("always")
def truncated_at_the_end(good, path):
    torch.save(good, path)
    os.truncate(path, path.stat().st_size - 1)


@_kind("always")
def old_torch_truncated(good, path):
    torch.save(good, path, _use_new_zipfile_serialization=False)
    os.truncate(path, path.stat().st_size // 2)


@_kind("always")
def empty(good, path):
    path.touch()


@_kind("always")
def text(good, path):
    path.write_text("<html>404: not found</html>\n")


@_kind("always")
def git_lfs_pointer(good, path):
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


@_kind("always")
def random_bytes(good, path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


@_kind("always")
def random_pickle(good, path):
    path.write_bytes(b"\x80\x02" + np.random.default_rng(0).bytes(5000))


@_kind("always")
def other_zip(good, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no checkpoint")


@_kind("always")
def flipped_bit(good, path):
    torch.save(good, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:  # between its parts a bit means nothing
        largest = max(archive.infolist(), key=lambda part: part.file_size)
        content = archive.read(largest)
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)


@_kind("always")
def zip_bomb(good, path):
    torch.save(good, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/999", bytes(50_000_000))


@_kind("always")
def zip_bomb_of_one_part(good, path):
    """Many entries of the directory that show the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", bytes(100_000))
        for i in range(1, 200):
            other = deepcopy(archive.filelist[0])
            other.filename = f"archive/data/{i}"
            archive.filelist.append(other)


@_altered("always")
def memory_bomb(checkpoint):
    checkpoint["meta"]["x"] = Call(bytearray, 2**62)


@_altered("always")
def tensor_larger_than_the_file(checkpoint):
    state = checkpoint["state_dict"]
    state[next(iter(state))] = torch.zeros(1).expand(2**40)


@_altered("never")
def nested_deeply(checkpoint):
    node = []
    for _ in range(300):
        node = [node]
    checkpoint["meta"]["x"] = node


@_altered("never")
def shared_lists(checkpoint):
    """2 ** 60 entries for whoever looks at all of them."""
    node = [0]
    for _ in range(60):
        node = [node, node]
    checkpoint["meta"]["x"] = node


# Other content


@_altered("always")
def a_list(checkpoint):
    return [checkpoint]


@_altered("always")
def a_tensor(checkpoint):
    return torch.zeros(3)


@_altered("always")
def state_dict_is_a_number(checkpoint):
    checkpoint["state_dict"] = 3


@_altered("always")
def state_dict_with_numbers_as_names(checkpoint):
    checkpoint["state_dict"] = dict(enumerate(checkpoint["state_dict"].values()))


@_altered("always")
def meta_is_text(checkpoint):
    checkpoint["meta"] = "epoch 3"


@_altered("always")
def runtime_info_is_a_list(checkpoint):
    checkpoint["message_hub"]["runtime_info"] = [1]


@_altered("never")
def best_is_in_meta(checkpoint):
    checkpoint["meta"]["best_checkpoints"] = [3]


@_altered("never")
def kept_ones_are_a_number(checkpoint):
    checkpoint["message_hub"]["runtime_info"]["keep_ckpt_ids"] = 3


@_altered("fit")
def empty_state_dict(checkpoint):
    checkpoint["state_dict"] = {}


@_altered("fit")
def other_names(checkpoint):
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {f"model.{name}": value for name, value in state.items()}


@_altered("fit")
def other_shapes(checkpoint):
    for name, value in checkpoint["state_dict"].items():
        checkpoint["state_dict"][name] = torch.zeros(*value.shape, 2)


@_altered("always")
def weights_are_text(checkpoint):
    for name in checkpoint["state_dict"]:
        checkpoint["state_dict"][name] = "weights"


@_altered("fit")
def half_of_the_backbone(checkpoint):
    names = [name for name in checkpoint["state_dict"] if name.startswith("backbone")]
    for name in names[::2]:
        del checkpoint["state_dict"][name]


def _set_weight(checkpoint, value):
    weight = checkpoint["state_dict"]["backbone.conv1.weight"]
    checkpoint["state_dict"]["backbone.conv1.weight"] = value(weight)


_WEIGHTS = {
    "nan_weights": lambda weight: weight * float("nan"),
    "infinite_weights": lambda weight: weight + float("inf"),
    "weights_without_values": lambda weight: weight.to("meta"),
    "sparse_weights": lambda weight: weight.to_sparse(),
    "quantized_weights": lambda weight: torch.quantize_per_tensor(
        weight, 1.0, 0, torch.qint8
    ),
}
for _name, _value in _WEIGHTS.items():

    def _change(checkpoint, value=_value):
        _set_weight(checkpoint, value)

    _change.__name__ = _name
    _altered("always")(_change)


# The state of a run


def _set(path, value):
    def change(checkpoint):
        node = checkpoint
        *parents, last = path
        for key in parents:
            node = node[key]
        if value is None:
            node.pop(last)
        else:
            node[last] = value(node.get(last)) if callable(value) else value

    return change


_HUB = ("message_hub", "runtime_info")
_QUEUE = "head.queue"
_STATES = {
    "epoch_below_0": (("meta", "epoch"), -3),
    "epoch_is_text": (("meta", "epoch"), "3"),
    "epoch_is_nan": (("meta", "epoch"), float("nan")),
    "iter_below_0": (("meta", "iter"), -1),
    "iter_is_huge": (("meta", "iter"), 2**62),
    "seed_is_text": (("meta", "seed"), "x"),
    "no_meta": (("meta",), None),
    "no_epoch": (("meta", "epoch"), None),
    "no_optimizer": (("optimizer",), None),
    "no_schedulers": (("param_schedulers",), None),
    "schedulers_are_numbers": (("param_schedulers",), [1, 2, 3]),
    "no_message_hub": (("message_hub",), None),
    "message_hub_without_parts": (("message_hub",), {}),
    "optimizer_without_groups": (("optimizer", "param_groups"), None),
    "optimizer_of_other_groups": (("optimizer", "param_groups"), lambda x: x * 2),
    "ema_of_another_model": (("ema_state_dict",), {"module.x": torch.zeros(1)}),
    "queues_of_no_ranks": (
        ("neighbor_queue_ranks",),
        {_QUEUE: {"features": torch.zeros(0, 80, 8), "count": torch.zeros(0).long()}},
    ),
    "queues_of_ranks_without_count": (
        ("neighbor_queue_ranks",),
        {_QUEUE: {"features": torch.zeros(1, 80, 8)}},
    ),
}
for _name, (_path, _value) in _STATES.items():
    _change = _set(_path, _value)
    _change.__name__ = _name
    _altered("resume")(_change)

_QUEUES = {
    "nan_in_the_queue": ("features", lambda x: x * float("nan"), "always"),
    "zeros_in_the_queue": ("features", lambda x: x * 0, "fit"),
    "queue_of_another_length": ("features", lambda x: x[:7], "fit"),
    "queue_is_a_number": ("features", lambda x: 3, "always"),
    "count_2_to_62": ("count", lambda x: x * 0 + 2**62, "fit"),
    "count_below_0": ("count", lambda x: x * 0 - 1, "fit"),
    "count_is_a_fraction": ("count", lambda x: x + 0.5, "fit"),
    "count_has_values": ("count", lambda x: torch.stack([x, x]), "fit"),
}
for _name, (_part, _value, _refused) in _QUEUES.items():
    _change = _set(("state_dict", f"{_QUEUE}.{_part}"), _value)
    _change.__name__ = _name
    _altered(_refused)(_change)


@_altered("always")
def nan_in_the_optimizer(checkpoint):
    for state in checkpoint["optimizer"]["state"].values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                state[name] = value * float("nan")


# Paths that MMEngine would delete


@_kind("never")
def best_is_any_folder(good, path):
    checkpoint = deepcopy(good)
    checkpoint["message_hub"]["runtime_info"].update(
        best_ckpt=str(path.parent / "victim"), best_score=0.0
    )
    torch.save(checkpoint, path)


@_kind("never")
def best_is_any_file(good, path):
    checkpoint = deepcopy(good)
    checkpoint["message_hub"]["runtime_info"].update(
        best_ckpt=str(path.parent / "victim/best_of_all.pth"), best_score=0.0
    )
    torch.save(checkpoint, path)


@_kind("never")
def kept_ones_are_paths(good, path):
    checkpoint = deepcopy(good)
    step = f"/../{path.parent}/victim/best_of_all"
    checkpoint["message_hub"]["runtime_info"]["keep_ckpt_ids"] = [step] * 20
    torch.save(checkpoint, path)
