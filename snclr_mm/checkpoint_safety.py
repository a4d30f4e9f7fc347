"""Loading checkpoints without running what they hold.

Importing ``snclr_mm`` makes MMEngine read every checkpoint through
:func:`load_checkpoint`: ``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')``
and ``mmpretrain.get_model(pretrained=...)``, in the tools and in one's own code.
"""

import os
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from unittest.mock import patch

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.hub import download_url_to_file, get_dir

#: What torch itself reads; the second one is what ``--trust-checkpoint`` sets.
ON, OFF = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class CheckpointError(ValueError, UnpicklingError):
    """A checkpoint that is broken, refused, or does not fit; names file and reason."""


def load_checkpoints_safely(trust: bool = False) -> None:
    """Make every later ``torch.load`` of this process refuse to run code.

    Importing ``snclr_mm`` protects MMEngine's loading alone; this also forbids
    ``torch.load(..., weights_only=False)`` to everything else in the process.

    Args:
        trust (bool): Load anything instead, for files whose source one trusts
            (``--trust-checkpoint``). Defaults to False.
    """
    on, off = (OFF, ON) if trust else (ON, OFF)
    os.environ[on] = "1"
    os.environ.pop(off, None)
    torch.serialization.add_safe_globals(ALLOWED)


def load_checkpoint(path: Any) -> dict:
    """Read a checkpoint file; nothing in it is run, unless all files are trusted.

    A checkpoint is a pickle. Only tensors, plain containers and what MMEngine's message
    hub stores (NumPy arrays and numbers, HistoryBuffer) are loaded. The config that it
    holds is kept as text, in ``meta['config_text']``: MMEngine would run it.

    A ``.safetensors`` file is a backbone of ``convert_checkpoint --to safetensors``.

    Args:
        path (str | Path | file): On this machine, or an open binary file.

    Returns:
        dict: The content, on the CPU. Who loads it moves it; AdamW's step counters
        belong there, or else it waits for the GPU for each of them in every step.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no checkpoint or not all of it, holds more than plain
            data, would inflate to more than its size, or has a tensor that is not
            finite.
    """
    trusted = os.environ.get(OFF) in ("1", "y", "yes", "true")
    if str(path).endswith(".safetensors"):
        return _load_safetensors(path)
    _check_file(path)
    try:
        with _allowed_globals():
            # The variables hold for all of torch; where none is set this does.
            loaded = torch.load(path, "cpu", weights_only=not trusted)
    except UnpicklingError as error:
        # Without torch's advice, to load it unsafely.
        reason = str(error).rpartition("WeightsUnpickler error: ")[2]
        reason = reason.partition(" Please use")[0].partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"{path} holds more than tensors and plain data: {reason}.\nIf you trust "
            "its source, pass --trust-checkpoint (in Python: "
            "snclr_mm.cli.load_checkpoints_safely(trust=True))."
        ) from None
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(
            f"{path} is no checkpoint, or not all of it ({reason})."
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path} holds no tensors by name, but a {type(loaded).__name__}."
        )
    if not trusted:
        _check_content(path, loaded)
        _disarm(loaded)
    return loaded


def read_checkpoint(path: str | Path, trust: bool = False) -> dict:
    """Read a checkpoint file or URL, on the CPU, as :func:`load_checkpoint` does.

    Args:
        path (str | Path): Whatever MMEngine's CheckpointLoader knows.
        trust (bool): As for :func:`load_checkpoints_safely`, but for this file alone.
            Defaults to False.
    """
    with patch.dict(os.environ):  # Other code of the process may load as before.
        load_checkpoints_safely(trust)
        return mmengine.runner.checkpoint.CheckpointLoader.load_checkpoint(
            str(path), map_location="cpu", logger="silent"
        )


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is none, or not all of it.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}.") from None


@contextmanager
def explain_refusal() -> Iterator[None]:
    """Turn a checkpoint's refusal into an exit with its reason."""
    try:
        yield
    except CheckpointError as error:
        raise SystemExit(f"Error: {error}") from None


def _load_safetensors(path: str | Path) -> dict:
    tensors = read_safetensors(path)
    whole = [name for name in tensors if name.startswith("backbone.")]
    if whole:
        raise CheckpointError(
            f"{path} holds {whole[0]!r}: a .safetensors file must hold a backbone "
            "alone, its names without 'backbone.', as convert_checkpoint writes it."
        )
    loaded = {"state_dict": {f"backbone.{name}": x for name, x in tensors.items()}}
    _check_content(path, loaded)
    return loaded


def _check_file(path: Any) -> None:
    if not isinstance(path, (str, os.PathLike)):
        return
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(2)
    # A zip file, or the bare pickle that torch.save wrote before 1.6.
    if not start.startswith((b"PK", b"\x80")):
        content = "is empty" if not size else "is none of torch's files"
        raise CheckpointError(f"{path} is no checkpoint: it {content}.")
    if start != b"PK":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
            if declared > size:  # torch.save compresses nothing
                raise ValueError(f"{size:,} bytes that would inflate to {declared:,}")
            bad = archive.testzip()  # torch reads over wrong bytes
            if bad is not None:
                raise ValueError(f"the checksum of its part {bad} is wrong")
    except Exception as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or not all of it: {error}."
        ) from None


def _check_content(path: Any, loaded: dict) -> None:
    """Refuse what is no plain data after all, and tensors with NaN or infinity."""
    state = loaded.get("state_dict", loaded)
    hub = loaded.get("message_hub", {})
    parts = {"meta": loaded.get("meta", {}), "message_hub": hub, "state_dict": state}
    if isinstance(hub, dict):
        parts["message_hub.runtime_info"] = hub.get("runtime_info", {})
    for key, part in parts.items():
        if not isinstance(part, dict):
            kind = type(part).__name__
            raise CheckpointError(f"{path}: {key!r} is a {kind}, not a dict.")
    for name, value in state.items():
        if type(name) is not str or not (
            state is loaded or isinstance(value, Tensor) or "_extra_state" in name
        ):
            raise CheckpointError(f"{path}: {name!r} in the state_dict is no tensor.")
    stack, seen = [("", loaded)], set()
    while stack:
        name, node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        problem = None
        if isinstance(node, Tensor):
            if node.layout != torch.strided or node.is_quantized or node.is_meta:
                problem = "is no plain tensor"
            elif any(hasattr(Tensor, str(key)) for key in vars(node)):
                problem = "has own methods"  # FSDP saves other attributes
            elif (
                node.nelement() * node.element_size() > node.untyped_storage().nbytes()
            ):
                problem = f"has {node.nelement():,} values, more than are stored"
            elif not name.endswith("mask") and not torch.isfinite(node).all():
                problem = "is not finite"
        elif isinstance(node, dict):
            own = getattr(node, "__dict__", {})
            if own and (
                list(own) != ["_metadata"] or not isinstance(own["_metadata"], dict)
            ):
                problem = "has own attributes"
            stack += [
                (f"{name}.{key}" if name else str(key), v) for key, v in node.items()
            ]
        elif isinstance(node, (list, tuple)):
            stack += [(f"{name}.{i}", value) for i, value in enumerate(node)]
        if problem:
            raise CheckpointError(f"{path}: {name} {problem}.")


def _disarm(loaded: dict) -> None:
    """Take out what MMEngine would run or delete."""
    meta = loaded.get("meta", {})
    for key in ("config", "config_text", "best_checkpoints"):
        meta.pop(key, None)
    hub = loaded.get("message_hub", {}).get("runtime_info", {})
    best = {key: hub.pop(key) for key in list(hub) if str(key).startswith("best_ckpt")}
    if best:
        meta["best_checkpoints"] = best
    kept = hub.get("keep_ckpt_ids", [])
    if type(kept) is not list or not all(type(number) is int for number in kept):
        del hub["keep_ckpt_ids"]
    texts = [str(place.pop("cfg")) for place in (meta, hub) if "cfg" in place]
    if texts:
        meta["config_text"] = texts[0]


class _PlainDtype:
    """What ``numpy.dtype`` means in a checkpoint: numbers and short texts alone."""

    def __init__(self, kind: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"[biufc]\d{1,2}|[US]\d{1,5}", str(kind)):
            raise ValueError(f"A checkpoint may not use numpy.dtype({kind!r}).")
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _PlainArray(np.ndarray):
    """What ``numpy.ndarray`` means in a checkpoint: its values must be all there."""

    def __new__(cls) -> "_PlainArray":
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: tuple) -> None:
        version, shape, plain, fortran, raw = state
        if not isinstance(plain, _PlainDtype) or not isinstance(raw, bytes):
            raise ValueError("A checkpoint's NumPy array is not one of numbers.")
        super().__setstate__((version, shape, plain.dtype, fortran, raw))

    def __reduce_ex__(self, protocol: int) -> tuple:
        return np.asarray(self).__reduce_ex__(protocol)


def _reconstruct(cls: type, shape: tuple, kind: bytes) -> _PlainArray:
    return _PlainArray()


def _scalar(plain: _PlainDtype, raw: bytes) -> np.generic:
    return np.frombuffer(raw, plain.dtype, 1)[0]


def _history_buffer_method(owner: type, name: str):
    # HistoryBuffer pickles its statistics as getattr(HistoryBuffer, name).
    if owner is not HistoryBuffer or name not in ("mean", "max", "min", "current"):
        raise ValueError(f"A checkpoint may not use getattr({owner}, {name!r}).")
    return getattr(HistoryBuffer, name)


#: What a checkpoint may name beside tensors, with the name that it has in the file.
#: NumPy's own functions are none of them: they take raw bytes for pointers.
ALLOWED = [
    (HistoryBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
    (bytes, "builtins.bytes"),  # none of them
    (_history_buffer_method, "builtins.getattr"),
    (_PlainDtype, "numpy.dtype"),
    (_PlainArray, "numpy.ndarray"),
    # NumPy 1 and 2 call the same functions by different names.
    *(
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    ),
]
_LOCK = threading.Lock()


@contextmanager
def _allowed_globals() -> Iterator[None]:
    """Let torch allow :data:`ALLOWED` and what the user added, each name once.

    torch takes one of several entries for a name, by chance. Others add the real
    ``getattr``, as MMEngine does.
    """
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        ours = {name for _, name in ALLOWED}
        own = [entry for entry in before if not ours & {_name(entry)}]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([*own, *ALLOWED])
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _name(entry: Any) -> str:
    if isinstance(entry, tuple):
        return entry[1]
    return f"{entry.__module__}.{entry.__qualname__}"


def _load_url(url: str, model_dir=None, map_location=None, progress=True) -> dict:
    """As torch's, but the file is read here."""
    folder = Path(model_dir or Path(get_dir()) / "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / Path(url.partition("?")[0]).name
    if not file.exists():
        download_url_to_file(url, str(file), progress=progress)
    return load_checkpoint(file)


def _safe_torch_load(file, map_location=None, weights_only=None) -> dict:
    return load_checkpoint(file)


# MMEngine's own function falls back to an unrestricted load.
mmengine.runner.checkpoint._safe_torch_load = _safe_torch_load
mmengine.runner.checkpoint.load_url = _load_url
