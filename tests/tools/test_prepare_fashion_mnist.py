import gzip
import hashlib

import pytest
from helpers.command import load_tool

prepare_fashion_mnist = load_tool("data/prepare_fashion_mnist.py")


@pytest.fixture
def files(monkeypatch):
    """Four small files instead of the published ones, and no network."""
    content = {name: name.encode() * 3 for name in prepare_fashion_mnist.FILES}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    monkeypatch.setattr(prepare_fashion_mnist, "FILES", digests)
    monkeypatch.setattr(prepare_fashion_mnist, "_fetch_with_apt", lambda root: False)
    monkeypatch.setattr(
        "mmpretrain.datasets.FashionMNIST.url_prefix", "http://127.0.0.1:9/"
    )
    return content


def test_takes_the_debian_package_then_what_is_there(files, tmp_path):
    package = tmp_path / "system" / prepare_fashion_mnist.FOLDER
    package.mkdir(parents=True)
    for name, data in files.items():
        (package / f"{name}.gz").write_bytes(gzip.compress(data))
    root = tmp_path / "data"
    origin = prepare_fashion_mnist.prepare(root, tmp_path / "system")
    assert origin == "Debian package dataset-fashion-mnist"
    assert {f.name: f.read_bytes() for f in root.iterdir()} == files
    assert prepare_fashion_mnist.prepare(root, tmp_path) == "already there"


def test_compressed_files_put_there_by_hand(files, tmp_path):
    for name, data in files.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
    assert prepare_fashion_mnist.prepare(tmp_path, tmp_path) == "already there"


def test_no_way_names_all_ways(files, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        prepare_fashion_mnist.prepare(tmp_path / "data", tmp_path)
    for way in ("apt-get install", "internet", "by hand", "t10k-labels", "data"):
        assert way in str(error.value)


def test_damaged_files_are_refused(files, tmp_path):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"cut off")
    with pytest.raises(
        ValueError, match=r"t10k-labels-idx1-ubyte is not the published"
    ):
        prepare_fashion_mnist.prepare(tmp_path, tmp_path)
