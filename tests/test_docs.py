"""What the documentation says holds: links, paths, options, examples, equations."""

import argparse
import ast
import inspect
import os
import posixpath
import re
import shlex
import subprocess
import sys
import textwrap
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from helpers.command import load_tool, run
from helpers.downstream import require_downstream
from helpers.tiny import REPOSITORY
from mmpretrain.registry import HOOKS, LOOPS, MODELS

import snclr_mm
from snclr_mm.models import NeighborHead, soft_neighbor_loss

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "checkpoints/*.md")
    for path in REPOSITORY.glob(pattern)
)
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
#: A path of this repository; what follows may be a pattern.
PATH = re.compile(
    r"(?<![\w./-])(?:tools|configs|tests|snclr_mm|docs)/[\w./{}*,-]*[\w}*]"
)
TOOL = re.compile(r"tools/[\w./]*\.(?:py|sh)$")
#: What launchers take themselves, or give to the tool that they start.
LAUNCHERS = {
    "tools/dist_train.sh": "tools/train.py",
    "tools/slurm_train.sh": "tools/train.py",
    "tools/dist_test.sh": "tools/test.py",
    "tools/slurm_test.sh": "tools/test.py",
    "tools/demo.sh": "tools/demo.py",
}


@cache
def read(page):
    return (REPOSITORY / page).read_text()


def blocks(page, language):
    return [
        textwrap.dedent(code)
        for _, kind, code in BLOCK.findall(read(page))
        if kind == language
    ]


def anchors(page):
    """Anchors of a page's headings, as GitHub and the site make them."""
    text = BLOCK.sub("", read(page))
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {slug.strip().replace(" ", "-") for slug in slugs}


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    text = BLOCK.sub("", read(page))
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        path = path if target else page
        assert (REPOSITORY / path).exists(), f"{page}: {link} is not there"
        assert path == page or not path.startswith(".."), f"{page}: {link}"
        if anchor and path.endswith(".md"):
            assert anchor in anchors(path), f"{page}: no heading for {link}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    for path in sorted(set(PATH.findall(read(page)))):
        assert exists(path), f"{page}: {path} is not there"


def exists(path):
    """Whether a path, a pattern of paths, or a config without its ending is there."""
    for group in re.findall(r"\{[^}]*\}", path):
        options = [path.replace(group, o) for o in group[1:-1].split(",")]
        return all(exists(option) for option in options)
    if "NAME" in path or "METHOD" in path:
        path = re.sub("NAME|METHOD", "*", path)
    made_by_installing = path.startswith("snclr_mm/.mim")
    found = any(True for p in (path, f"{path}*") for _ in REPOSITORY.glob(p))
    return found or made_by_installing


def commands(page):
    """Commands of a page's shell blocks, as lists of words."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"\s#\s.*", "", line)
            line = re.sub(r"^(?:\w+=\S*\s+)+", "", line.strip())
            if "tools/" in line and not line.startswith("#"):
                yield shlex.split(line)


class Parsed(Exception):
    """Raised where a tool would parse its arguments."""


@cache
def options_of(tool):
    """Options of a Python tool's own parser."""

    def stop(parser, *args, **kwargs):
        raise Parsed(parser)

    module = load_tool(tool.removeprefix("tools/"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed) as stopped:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        getattr(module, "parse_args", getattr(module, "main", None))([])
    return set(stopped.value.args[0]._option_string_actions)


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page):
    for words in commands(page):
        position, tool = next(
            ((i, m[0]) for i, w in enumerate(words) if (m := TOOL.search(w))),
            (0, None),
        )
        if tool is None:
            continue
        given = [w.split("=")[0] for w in words[position + 1 :] if w.startswith("--")]
        tool = LAUNCHERS.get(tool, tool)
        if tool.endswith(".sh"):
            source = read(tool)
            passed_on = {"tools/run_tests.sh": given}.get(tool, [])
            missing = [o for o in given if o not in source and o not in passed_on]
        else:
            missing = [o for o in given if o not in options_of(tool)]
        assert not missing, f"{page}: {tool} has no {missing}"


def test_options_are_found():
    assert {"--resume", "--cfg-options", "--work-dir"} <= options_of("tools/train.py")
    assert "--protocols" in options_of("tools/evaluate.py")
    assert "--protocols" not in options_of("tools/train.py")


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles(page):
    for block in blocks(page, "python"):
        # {{_base_.x}} is MMEngine's, and is text until a config is read.
        block = re.sub(r"\{\{[^}]*\}\}", "None", block)
        compile(block, page, "exec", flags=ast.PyCF_ONLY_AST)


RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)^```", re.M | re.S)


@pytest.fixture
def registries():
    """What examples register is forgotten afterwards."""
    kept = dict(MODELS.module_dict)
    yield
    MODELS.module_dict.clear()
    MODELS.module_dict.update(kept)


@pytest.mark.parametrize("page", [p for p in PAGES if RUNNABLE.search(read(p))])
def test_examples_run(page, registries, capsys):
    """The marked blocks of a page, one after the other."""
    run_examples(page)


def run_examples(page):
    names = {"__name__": "example"}
    for block in RUNNABLE.findall(read(page)):
        exec(compile(block, page, "exec"), names)
    return names


def test_expected_loss(capsys):
    """The table of docs/loss_is_flat.md, and its function against the loss itself."""
    page = "docs/loss_is_flat.md"
    expected_loss = run_examples(page)["expected_loss"]
    recipes = {
        "snclr_r50_8xb256.py": dict(objective="log_of_sum", loss_weight=2.0),
        "snclr_resnet-tiny_1xb128_fashion-mnist.py": dict(
            objective="sum_of_logs", loss_weight=1.0
        ),
    }
    rows = dict(re.findall(r"^\| `(snclr_\S+)` \| (.+) \|$", read(page), re.M))
    assert rows.keys() == recipes.keys()
    for name, row in rows.items():
        (n, k, tau), *ranges = (
            [float(value) for value in cell.split(",")] for cell in row.split("|")
        )
        for neighbors, given in zip((0, k), ranges, strict=True):
            computed = [
                expected_loss(n, neighbors, tau, right=right, **recipes[name])
                for right in (False, True)
            ]
            assert given == [round(value, 1) for value in computed]

    n, k, tau = 4, 3, 0.5
    axes = torch.eye(32)
    for right in (False, True):
        # Each image has an axis of its own; its neighbors are the same.
        key = axes[:n]
        query = key if right else axes[8 : 8 + n]
        index = torch.arange(n)[:, None].expand(n, k)
        weight = torch.full((n, k), 1 / k)
        for objective in ("log_of_sum", "sum_of_logs"):
            loss = soft_neighbor_loss(query, key, index, key, weight, tau, objective)
            expected = expected_loss(n, k, tau, objective, 1.0, right) / 2
            torch.testing.assert_close(loss, torch.tensor(expected))
        logits = F.normalize(query) @ key.T / tau
        loss = F.cross_entropy(logits, torch.arange(n))
        expected = expected_loss(n, 0, tau, "log_of_sum", 1.0, right) / 2
        torch.testing.assert_close(loss, torch.tensor(expected))


def test_equations_show_the_code():
    """Each block of docs/equations.md stands in the file that was named last."""
    parts = re.split(
        r"\.\./(snclr_mm/\S+\.py)\)", read("docs/equations.md").partition("\n## ")[2]
    )
    before, *rest = parts
    assert not BLOCK.search(before)
    shown, source = 0, None
    for path, text in zip(rest[::2], rest[1::2], strict=True):
        source = textwrap.dedent(read(path))
        lines = [line.strip() for line in source.splitlines()]
        for _, _, code in BLOCK.findall(text):
            wanted = [line.strip() for line in code.splitlines()]
            starts = range(len(lines) - len(wanted) + 1)
            found = any(lines[i : i + len(wanted)] == wanted for i in starts)
            assert found, f"docs/equations.md: not in {path}:\n{code}"
            shown += 1
    assert shown > 10


def settings(cls):
    """Settings of a component and their defaults, as docs/configs.md has them."""
    passed_by_mmengine = {"self", "runner", "dataloader", "evaluator"}
    return {
        name: "required" if p.default is p.empty else f"`{p.default!r}`"
        for name, p in inspect.signature(cls.__init__).parameters.items()
        if name not in passed_by_mmengine and p.kind is p.POSITIONAL_OR_KEYWORD
    }


SECTIONS = dict(
    re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", read("docs/configs.md"), re.M | re.S)
)


HEADS = [
    name
    for name in snclr_mm.models.__all__
    if issubclass(type(cls := getattr(snclr_mm.models, name)), type)
    and issubclass(cls, NeighborHead)
    and cls is not NeighborHead
]
OTHERS = "SNCLR NeighborQueue CrossAttentionNeck NeighborQueueHook KNNValLoop"


@pytest.mark.parametrize("name", [*HEADS, *OTHERS.split()])
def test_settings(name):
    cls = MODELS.get(name) or HOOKS.get(name) or LOOPS.get(name)
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", SECTIONS[name], re.M)
    assert {key: default for key, default, _ in rows} == settings(cls)
    assert all(meaning.strip() for *_, meaning in rows)


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Run a notebook's cells as one script; returns what it printed."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run_notebook(name, **settings):
        for key, value in settings.items():
            monkeypatch.setenv(key, str(value))
        script = tmp_path / f"{name}.py"
        script.write_text("\n".join(blocks(f"docs/notebooks/{name}.md", "python")))
        return run(sys.executable, script, cwd=tmp_path)

    return run_notebook


@pytest.mark.slow
def test_notebook_of_a_folder(notebook):
    knn = re.search(r"kNN: ([\d.]+) %", notebook("folder_to_knn", EPOCHS=3))
    assert float(knn[1]) > 60


@pytest.mark.slow
def test_notebook_of_byol(notebook):
    purity = re.search(
        r"^([\d.]+) of the 5", notebook("byol_with_soft_neighbors"), re.M
    )
    assert float(purity[1]) > 0.6


@pytest.mark.slow
def test_notebook_of_a_detector(notebook, digits_root, tmp_path):
    require_downstream()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/fashion-mnist").symlink_to(digits_root)
    assert "'coco/segm_mAP'" in notebook("checkpoint_to_detector", STEPS=2)


@pytest.mark.slow
def test_site(tmp_path):
    """The site builds without a warning, and asks no other site for anything."""
    python = os.environ.get("DOCS_PYTHON", sys.executable)
    modules = "import mkdocs, material, mkdocstrings_handlers.python, latex2mathml"
    if subprocess.run([python, "-c", modules], capture_output=True).returncode:
        pytest.skip("the extra `docs` is not installed; DOCS_PYTHON names a Python")
    done = subprocess.run(
        [python, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    pages = list(tmp_path.glob("**/*.html"))
    assert len(pages) > 30
    loaded = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(?:https?:)?//[^>]*"
        r"|<link[^>]*href=[\"']?(?:https?:)?//[^>]*"
        r"|url\([\"']?(?:https?:)?//[^)]*|@import[^;]*"
    )
    for path in [*pages, *tmp_path.glob("**/*.css")]:
        assert not loaded.findall(path.read_text()), path
    assert "<math" in (tmp_path / "equations.html").read_text()
    for path in pages:
        assert "arithmatex" not in path.read_text(), path
    api = (tmp_path / "api/losses.html").read_text()
    assert 'id="snclr_mm.models.losses.soft_neighbor_loss.soft_neighbor_loss"' in api
    index = (tmp_path / "search/search_index.js").read_text()
    assert "positiveness_max" in index
