import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint

from snclr_mm.cli import load_checkpoints_safely


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
        load_checkpoint(torch.nn.Linear(1, 1), str(path))
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
