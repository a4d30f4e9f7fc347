import logging
import subprocess
import sys

import torch
from helpers.huge_image import write_huge_image
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


def run_silently(code):
    """In a fresh process: here all has been imported, and warned of, before."""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_import_prints_nothing_and_loads_only_what_is_needed(tmp_path):
    write_huge_image(tmp_path / "huge.png")
    run_silently(f"""if True:
        import sys
        for name in ("mmdet", "mmseg"):  # where they are installed, mmpretrain has them
            sys.modules[name] = None
        import snclr_mm, torchvision
        loaded = {{name.split(".")[0] for name in sys.modules}}
        assert "mmpretrain" in loaded
        assert not loaded & {{"sklearn", "scipy", "pytest"}}, loaded
        # OpenCV, which is imported after us, decodes no image of gigabytes.
        try:
            snclr_mm.datasets.LoadImage()(dict(img_path="{tmp_path}/huge.png"))
        except ValueError as error:
            assert "huge.png' can't be read" in str(error) and "PIXELS" in str(error)
        else:
            raise AssertionError("decoded")
    """)


def test_a_run_starts_without_harmless_notices(digits_root):
    run_silently(f"""if True:
        import sys
        sys.modules["mmcv.ops"] = None  # as pip builds mmcv
        import snclr_mm.cli
        from mmpretrain.datasets import FashionMNIST
        snclr_mm.cli.prepare_torch()
        assert len(FashionMNIST({str(digits_root)!r})) == 1437
    """)


def test_other_notices_are_still_printed(capsys):
    print_log("Could not import OneDL. Skipping OneDL datasets.")
    print_log("Could not import another library", level=logging.DEBUG)
    assert capsys.readouterr().out == "Could not import another library\n"


def test_mmseg_configs_are_looked_up_in_the_fork():
    from mmengine.config.utils import MODULE2PACKAGE

    assert MODULE2PACKAGE["mmseg"] == "mmseg"
