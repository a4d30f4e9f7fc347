import logging
import subprocess
import sys

import pytest
import torch
from mmengine.logging import print_log

from snclr_mm import compat


def test_nms_is_defined_once_and_only_where_missing():
    compat.define_torchvision_ops()
    compat.define_torchvision_ops()
    assert torch.ops.torchvision.nms.default is not None


def test_real_torchvision_ops_are_left_alone(monkeypatch):
    defined = []
    monkeypatch.setattr(torch.library, "define", lambda *args: defined.append(args))
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    compat.define_torchvision_ops()
    assert defined == []


@pytest.mark.parametrize("missing", ["mmcv.ops", "onedl"])
def test_the_import_works_and_prints_nothing(missing):
    # In a fresh process; mmpretrain.models imports torchvision.
    code = f"import sys; sys.modules[{missing!r}] = None; import snclr_mm, torchvision"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_notices_are_still_printed(capsys):
    print_log("Could not import OneDL. Skipping OneDL datasets.")
    print_log("Could not import another library", level=logging.DEBUG)
    assert capsys.readouterr().out == "Could not import another library\n"


def test_mmseg_configs_are_looked_up_in_the_fork():
    from mmengine.config.utils import MODULE2PACKAGE

    assert MODULE2PACKAGE["mmseg"] == "mmseg"
