"""What a wheel gives to somebody who has no checkout."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers.command import run
from helpers.tiny import REPOSITORY

CONTENT = (
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "model-index.yml",
    "configs",
    "tools",
)
USE = """
import mmpretrain, snclr_mm
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope, MODELS
from pathlib import Path

installed = Path(snclr_mm.__file__).parent
assert installed.parent == Path({target!r}), installed
assert not any(path.is_symlink() for path in installed.joinpath(".mim").iterdir())

templates = installed / "visualization/templates"
assert (templates / "neighbor_browser.html").is_file()
assert (templates / "run_report.html").is_file()

assert "snclr_r50_8xb256" in mmpretrain.list_models("*snclr*")
model = mmpretrain.get_model("snclr_resnet-tiny_1xb128_fashion-mnist")
assert type(model) is snclr_mm.models.SNCLR

headline = mmpretrain.apis.model.ModelHub.get("snclr_r50_8xb256").config
Path("own.py").write_text('_base_ = "snclr_mm::imagenet/snclr_r50_8xb256-200e_in1k.py"')
own = Config.fromfile("own.py")
assert own.train_cfg.max_epochs == 200
assert own.model.pop("_scope_") == "snclr_mm"
assert own.model == headline.model
assert get_config("snclr_mm::imagenet/snclr_r50_8xb256-200e_in1k.py").train_cfg
photos = get_config("snclr_mm::_base_/../snclr_r18_1xb128_image-folder.py")
assert photos.model.backbone.depth == 18
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the project is installed from its source distribution."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", ".mim")
    for name in (*CONTENT, "snclr_mm"):
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, source)
    run(sys.executable, "setup.py", "-q", "sdist", "-d", root, cwd=source)
    (archive,) = root.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-compile")
    options = ("--no-deps", "--no-build-isolation", "--target", root / "site")
    run(*pip, *options, archive, cwd=root)
    return root / "site"


def use(installed, *command, cwd):
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_libraries_find_the_configs_and_models(installed, tmp_path):
    use(installed, "-c", USE.format(target=str(installed)), cwd=tmp_path)


def test_the_installed_tool_trains(installed, digits_root, tmp_path):
    """As `mim train snclr_mm CONFIG` calls it."""
    mim = installed / "snclr_mm/.mim"
    use(
        installed,
        mim / "tools/train.py",
        "configs/snclr_resnet-tiny_1xb128_fashion-mnist.py",  # found from anywhere
        "--no-validate",
        "--work-dir",
        "run",
        "--cfg-options",
        f"train_dataloader.dataset.data_root={digits_root}",
        "train_dataloader.dataset.indices=8",
        "train_dataloader.batch_size=4",
        "train_dataloader.num_workers=0",
        "train_cfg.max_epochs=1",
        cwd=tmp_path,
    )
    assert (tmp_path / "run/epoch_1.pth").exists()


def test_links_in_an_editable_install(tmp_path):
    code = (REPOSITORY / "setup.py").read_text()
    for name in CONTENT:
        (tmp_path / name).touch()
    (tmp_path / "setup.py").write_text(code)
    (tmp_path / "snclr_mm").mkdir()
    shutil.copy(REPOSITORY / "snclr_mm/__init__.py", tmp_path / "snclr_mm")
    for _ in range(2):  # the second finds links
        run(sys.executable, "setup.py", "-q", "editable_wheel", cwd=tmp_path)
    for name in ("configs", "tools", "model-index.yml"):
        link = tmp_path / "snclr_mm/.mim" / name
        assert link.is_symlink() and link.resolve() == tmp_path / name


def test_the_metafile_has_what_was_measured():
    from mmengine.config import Config

    content = yaml.safe_load((REPOSITORY / "configs/metafile.yml").read_text())
    folder = REPOSITORY / "docs/benchmarks"
    records = {
        name: json.loads((folder / f"fashion-mnist_{name}.json").read_text())["arms"]
        for name in ("comparison", "demo")
    }
    for model in content["Models"]:
        config = REPOSITORY / model["Config"]
        assert config.stem == model["Name"]
        cfg = Config.fromfile(config)
        assert model["Metadata"]["Epochs"] == cfg.train_cfg.max_epochs
        base = cfg.auto_scale_lr.base_batch_size
        assert model["Metadata"]["Batch Size"] == base
        for result in model["Results"] or []:
            record = records["demo" if "-30e_" in model["Name"] else "comparison"]
            arm = record[model["Name"].partition("_")[0]]
            measured = [arm[key]["mean"] for key in ("knn", "linear", "few-shot-10")]
            given = list(result["Metrics"].values())
            assert given == pytest.approx(measured, abs=0.005)
