import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as load_into
from mmengine.runner.checkpoint import get_torch_safe_globals

from snclr_mm import checkpoint_safety
from snclr_mm.checkpoint_safety import (
    ALLOWED,
    CheckpointError,
    _allowed_globals,
    _name,
    load_checkpoint,
    load_checkpoints_safely,
)


@pytest.fixture(autouse=True)
def unchanged_environment(monkeypatch):
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, "0")
    yield
    torch.serialization.clear_safe_globals()


class Malicious:
    def __reduce__(self):
        return (os.mkdir, (Malicious.target,))


def test_checkpoints_with_code_are_refused_unless_trusted(tmp_path):
    Malicious.target = str(tmp_path / "hacked")
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": Malicious()}, path)
    load_checkpoints_safely()
    # MMEngine would retry without restrictions.
    with pytest.raises(pickle.UnpicklingError):
        load_into(torch.nn.Linear(1, 1), str(path))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not (tmp_path / "hacked").exists()
    load_checkpoints_safely(trust=True)
    torch.load(path)
    assert (tmp_path / "hacked").exists()


def test_getattr_is_restricted_to_history_buffers(tmp_path):
    class Attack:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, "__init__"))

    torch.save(Attack(), tmp_path / "bad.pth")
    load_checkpoints_safely()
    with pytest.raises((pickle.UnpicklingError, ValueError), match="getattr|__init__"):
        torch.load(tmp_path / "bad.pth")


def test_what_mmengine_saves_is_loaded(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    data = {"hub": buffer, "number": np.float64(3), "array": np.arange(3)}
    torch.save(data, tmp_path / "good.pth")
    load_checkpoints_safely()
    CheckpointLoader.load_checkpoint(str(tmp_path / "good.pth"))
    loaded = torch.load(tmp_path / "good.pth")  # also after MMEngine's own loading
    assert loaded["hub"].mean() == 1.5
    assert loaded["number"] == 3
    assert loaded["array"].tolist() == [0, 1, 2]


def test_numbers_pickled_by_another_numpy_are_loaded(tmp_path):
    torch.save({"number": np.float64(3)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new:
        names = {info: new.read(info) for info in new.namelist()}
    with zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name, data in names.items():
            swap = (b"numpy._core.", b"numpy.core.")
            old.writestr(name, data.replace(*(swap if swap[0] in data else swap[::-1])))
    load_checkpoints_safely()
    for name in ("new", "old"):
        assert torch.load(tmp_path / f"{name}.pth")["number"] == 3


def test_each_name_means_one_thing(tmp_path):
    """torch looks names up in a set, so of two entries either may win."""
    mmengine_own = get_torch_safe_globals()
    assert getattr in mmengine_own
    torch.serialization.add_safe_globals(mmengine_own)
    with _allowed_globals():
        entries = torch.serialization.get_safe_globals()
    names = [_name(entry) for entry in entries]
    assert len(names) == len(set(names))
    assert getattr not in entries
    meanings = dict(zip(names, entries, strict=True))
    assert meanings["builtins.getattr"] in ALLOWED
    after = torch.serialization.get_safe_globals()
    assert {*map(id, after)} == {*map(id, mmengine_own)}


def test_importing_is_enough_and_leaves_own_loads_alone(tmp_path):
    torch.save({"x": torch.nn.Linear(1, 1)}, tmp_path / "own.pth")
    with pytest.raises(CheckpointError, match=r"own\.pth holds more .*Linear"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "own.pth"))
    torch.load(tmp_path / "own.pth", weights_only=False)


def test_files_from_a_url_are_read_alike(tmp_path, monkeypatch):
    """The download itself is torch's; the file is ours to read."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name, x in (("good", 1), ("bad", torch.nn.Linear(1, 1))):
        saved = {"state_dict": {"w": torch.ones(2)}, "meta": {"x": x, "config": "1/0"}}
        source = tmp_path / f"{name}-source.pth"
        torch.save(saved, source)
        monkeypatch.setattr(
            checkpoint_safety,
            "download_url_to_file",
            lambda url, file, progress, source=source: shutil.copy(source, file),
        )
        url = f"https://example.org/models/{name}.pth?version=2"
        if name == "bad":
            with pytest.raises(CheckpointError, match=r"bad\.pth holds more"):
                CheckpointLoader.load_checkpoint(url)
        else:
            loaded = CheckpointLoader.load_checkpoint(url, map_location="cpu")
            assert loaded["meta"] == {"x": 1}


def test_arrays_stay_arrays(tmp_path):
    arrays = {
        "f": np.arange(6, dtype=">f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "b": np.array([True, False]),
        "u": np.array(["a", "bc"]),
        "empty": np.zeros((0, 3)),
    }
    torch.save(arrays, tmp_path / "a.pth")
    for name in ("b.pth", "c.pth"):  # what was loaded is saved as NumPy's own
        loaded = load_checkpoint(tmp_path / "a.pth")
        torch.save(loaded, tmp_path / name)
        again = torch.load(tmp_path / name, weights_only=False)
        for key, value in arrays.items():
            assert (
                np.array_equal(loaded[key], value) and loaded[key].shape == value.shape
            )
            assert type(again[key]) is np.ndarray and again[
                key
            ].dtype == value.dtype.newbyteorder("=")


def test_a_checkpoint_comes_to_the_cpu(tmp_path):
    """Wherever it is asked for: AdamW's step counters would stay on a GPU, and wait."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": {}, "optimizer": optimizer.state_dict()}, path)
    loaded = CheckpointLoader.load_checkpoint(str(path), map_location="meta")
    state = loaded["optimizer"]["state"][0]
    assert {value.device.type for value in state.values()} == {"cpu"}
