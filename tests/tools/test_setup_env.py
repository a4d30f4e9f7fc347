import shutil

import pytest
from helpers.command import run
from helpers.tiny import REPOSITORY

#: Does what setup_env.sh asks of the environment's Python, without pip and a compiler.
FAKE_PYTHON = """#!/bin/sh
for last; do :; done
case "$*" in
    *" wheel "*) echo built; echo mmcv >"$last/mmcv.whl" ;;
    *--force-reinstall*) echo "installed $(printf '%s\\n' "$@" | grep -c '[.]whl$')" ;;
    *platform.machine*) echo mmcv-for-this-machine ;;
esac
"""


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """Sets up a copy of the repository, with a cache of its own; returns the output."""
    repository = tmp_path / "repository"
    (repository / "tools").mkdir(parents=True)
    (repository / ".venv/bin").mkdir(parents=True)
    for name in ("setup.py", "tools/constraints.txt", "tools/setup_env.sh"):
        shutil.copy(REPOSITORY / name, repository / name)
    (repository / ".venv/bin/activate").touch()
    for path in (repository / ".venv/bin/python", tmp_path / "bin/c++"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE_PYTHON)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOWNSTREAM", "1")

    def set_up():
        for stamp in (repository / ".venv").glob(".complete-*"):
            stamp.unlink()
        command = ["bash", "-euc", ". tools/setup_env.sh"]
        lines = run(*command, cwd=repository).splitlines()
        return [s for s in lines if not s.startswith(("Setting up ", "Adding "))]

    return set_up


BUILT = ["Building mmcv's ops, 5 minutes on two idle cores ...", "built"]


@pytest.mark.parametrize("damage", ["altered", "added", "without sums", "empty"])
def test_a_wheel_is_installed_only_as_it_was_built(set_up, tmp_path, damage):
    assert set_up() == [*BUILT, "installed 1"]
    assert set_up() == ["installed 1"]
    kept = tmp_path / "cache/snclr_mm/mmcv-for-this-machine"
    if damage == "without sums":
        (kept / "SHA256SUMS").unlink()
    elif damage == "empty":
        (kept / "SHA256SUMS").write_text("")
        (kept / "mmcv.whl").unlink()
    else:
        (kept / {"altered": "mmcv.whl", "added": "a.whl"}[damage]).write_text("evil")
    assert set_up() == [*BUILT, "installed 1"]
    assert (kept / "mmcv.whl").read_text() == "mmcv\n"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_says_that_a_gpu_cannot_be_used(set_up, tmp_path):
    """FAKE_PYTHON can use any GPU, the real one without a GPU cannot."""
    smi = tmp_path / "bin/nvidia-smi"
    smi.write_text("#!/bin/sh\n")
    smi.chmod(0o755)
    assert not any("cannot use this GPU" in line for line in set_up())
    python = tmp_path / "repository/.venv/bin/python"
    python.write_text(FAKE_PYTHON.replace("esac", "    *cuda*) exit 1 ;;\nesac"))
    assert any("driver 580 or newer" in line for line in set_up())
