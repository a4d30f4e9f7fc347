import pytest


@pytest.fixture(autouse=True)
def quick_configs(monkeypatch):
    """MMEngine's pretty-printing of a config takes seconds, several times a run."""
    formatted = "yapf.yapflib.yapf_api.FormatCode"
    monkeypatch.setattr(formatted, lambda text, **_: (text, 0))
