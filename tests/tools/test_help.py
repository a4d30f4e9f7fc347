"""Every tool tells its options at once: no library is imported for it."""

import ast
import runpy
import sys

import pytest
from helpers.tiny import REPOSITORY

from snclr_mm.checkpoints import BRANCHES, SOURCES, TARGETS
from snclr_mm.evaluation.protocols import PROTOCOLS, ProtocolSettings

TOOLS = [
    path
    for path in sorted((REPOSITORY / "tools").rglob("*.py"))
    if "add_argument" in path.read_text() and path.name not in ("options.py",)
    if path.parent.name not in ("benchmarks", "reliability")  # for developers
]
HEAVY = ("torch", "mmengine", "mmcv", "mmpretrain", "snclr_mm", "sklearn", "cv2")


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_help_imports_nothing(path, monkeypatch, capsys):
    for name in list(sys.modules):
        if name.partition(".")[0] in HEAVY:
            monkeypatch.setitem(sys.modules, name, None)  # to import it is an error
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(path), run_name="__main__")
    assert error.value.code == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"usage: {path.name}") and not output.err


def constants(name):
    """Names that a tool repeats, because it may not import them."""
    tree = ast.parse((REPOSITORY / "tools" / name).read_text())
    space = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AugAssign):
            try:
                exec(ast.unparse(node), space)
            except NameError:
                continue
    return space


def test_repeated_names_are_those_of_the_package():
    found = constants("convert_checkpoint.py")
    for name, value in dict(
        TARGETS=TARGETS, SOURCES=SOURCES, BRANCHES=BRANCHES
    ).items():
        assert found[name] == value
    assert constants("evaluate.py")["PROTOCOLS"] == tuple(PROTOCOLS)
    text = (REPOSITORY / "tools/evaluate.py").read_text()
    for name in ("knn_temperature", "per_class", "percent", "draws"):
        value = getattr(ProtocolSettings, name)
        values = value if isinstance(value, tuple) else (value,)
        assert f'default: {" ".join(map(str, values))}"' in text, name
