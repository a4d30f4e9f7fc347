import subprocess
import sys

import torch

from snclr_mm import compat


def python(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_can_be_imported_after_the_package():
    # In a fresh process: here it has long been imported.
    out = python("import snclr_mm.compat, torchvision; print(torchvision.__version__)")
    assert out.strip().splitlines()[-1].startswith("0.")


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


def test_runs_start_without_harmless_warnings(digits_root):
    code = f"""if True:
        import snclr_mm
        from mmpretrain.datasets import FashionMNIST
        assert len(FashionMNIST({str(digits_root)!r})) == 1437
    """
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "MultiScaleDeformableAttention" not in done.stderr
    assert "not writable" not in done.stderr


def test_mmseg_configs_are_looked_up_in_the_fork():
    from mmengine.config.utils import MODULE2PACKAGE

    assert MODULE2PACKAGE["mmseg"] == "mmseg"


def test_checkpoints_are_not_reentrant_unless_asked_for():
    x = torch.ones(2, requires_grad=True)
    for reentrant, option in ((False, {}), (True, dict(use_reentrant=True))):
        y = torch.utils.checkpoint.checkpoint(torch.exp, x, **option)
        assert ("Checkpoint" in type(y.grad_fn).__name__) == reentrant
