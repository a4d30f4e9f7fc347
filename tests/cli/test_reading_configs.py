import argparse
import sys

import pytest
from helpers.tiny import CONFIG, REPOSITORY

import snclr_mm.cli.configs
from snclr_mm.cli import find_config, load_config, read_config


def test_configs_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(snclr_mm.cli.configs, "MIM", REPOSITORY)  # as installed
    assert find_config(str(CONFIG.relative_to(REPOSITORY))) == str(CONFIG)
    (tmp_path / "own.py").write_text("")
    assert find_config("own.py") == "own.py"
    with pytest.raises(
        FileNotFoundError, match=rf"'none.py'.*{tmp_path}.*{REPOSITORY}/configs"
    ):
        find_config("none.py")


def test_detectors_need_ops_for_the_gpu(tmp_path, monkeypatch):
    ops = pytest.importorskip("mmcv.ops", reason="mmcv is built without ops")
    config = tmp_path / "a.py"
    config.write_text("default_scope = 'mmdet'\n")
    monkeypatch.setattr(ops, "get_compiling_cuda_version", lambda: "not available")
    assert read_config(str(config)).default_scope == "mmdet"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(SystemExit, match=r"a\.py.*built for CPUs.*FORCE_CUDA=1"):
        read_config(str(config))


@pytest.mark.parametrize("missing", ["mmdet", "mmcv.ops"])
def test_missing_downstream_libraries(missing, tmp_path, monkeypatch):
    config = tmp_path / "a.py"
    config.write_text("default_scope = 'mmdet'\n")
    if missing == "mmdet":
        config.write_text("_base_ = 'mmdet::_base_/default_runtime.py'\n")
        monkeypatch.setattr("mmengine.config.config.is_installed", lambda _: False)
    else:
        monkeypatch.setitem(sys.modules, "mmcv.ops", None)
    args = argparse.Namespace(
        config=str(config), launcher="none", local_rank=0, work_dir=None
    )
    with pytest.raises(SystemExit, match=r"a\.py needs.*(?s:.*)\[downstream\]"):
        load_config(args)
