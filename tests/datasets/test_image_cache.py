import os
import pickle
import shutil
from collections import namedtuple
from multiprocessing import get_context

import mmcv
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from snclr_mm.datasets import ImageCache, ImageFolder, LoadImage
from snclr_mm.datasets.image_cache import estimate_bytes

PIPELINE = [dict(type="LoadImage"), dict(type="PackInputs")]


@pytest.fixture
def images(tmp_path, image_folder):
    """Twelve images of the folder, and one of another size."""
    root = tmp_path / "images"
    for name in ("china", "flower"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            file = next((image_folder / name).glob(f"{i}.*"))
            shutil.copy(file, root / name)
    wide = mmcv.imread(str(image_folder / "china/1.jpg"))[:40]
    mmcv.imwrite(wide, str(root / "wide.png"))
    return root


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the images that have been decoded since."""
    paths = []
    transform = LoadImage.transform

    def counted(self, results):
        if "img" not in results:
            paths.append(results["img_path"])
        return transform(self, results)

    monkeypatch.setattr(LoadImage, "transform", counted)
    return paths


def build(images, tmp_path, **options):
    return ImageFolder(
        data_root=str(images),
        pipeline=PIPELINE,
        cache_dir=str(tmp_path / "cache"),
        **options,
    )


def test_decodes_once_and_gives_the_same(images, tmp_path, decoded):
    plain = ImageFolder(data_root=str(images), pipeline=PIPELINE)
    expected = [plain[i]["inputs"] for i in range(len(plain))]
    assert len(decoded) == 13
    for _ in range(2):  # as in a second run
        cached = build(images, tmp_path)
        for _ in range(2):
            inputs = [cached[i]["inputs"] for i in range(len(cached))]
            assert all(map(torch.equal, inputs, expected))
    assert len(decoded) == 26
    assert {image.shape[1] for image in inputs} == {40, 96}
    sample = cached[0]["data_samples"]
    assert sample.img_path == plain[0]["data_samples"].img_path
    assert sample.ori_shape == (96, 96)
    # What a transform writes does not reach the file.
    inputs[0].zero_()
    assert torch.equal(cached[0]["inputs"], plain[0]["inputs"])


def test_labels_and_subsets(images, tmp_path):
    (images / "wide.png").unlink()
    plain = ImageFolder(data_root=str(images), pipeline=PIPELINE, with_label=True)
    cached = build(images, tmp_path, with_label=True, indices=[7, 2, 9])
    last = cached.get_subset([2])
    for mine, row in ((cached[0], 7), (cached[1], 2), (last[0], 9)):
        assert torch.equal(mine["inputs"], plain[row]["inputs"])
        label = mine["data_samples"].gt_label
        assert label == plain[row]["data_samples"].gt_label


def test_workers_share_the_file(images, tmp_path, decoded):
    (images / "wide.png").unlink()
    cached = build(images, tmp_path)
    expected = torch.stack([cached[i]["inputs"] for i in range(12)])
    decoded.clear()
    loader = DataLoader(cached, 4, num_workers=2, persistent_workers=True)
    loader.collate_fn = lambda batch: torch.stack([item["inputs"] for item in batch])
    for _ in range(2):
        assert torch.equal(torch.cat(list(loader)), expected)
    assert not decoded
    assert len(pickle.dumps(cached.cache)) < 5000


def _read(images, tmp_path, results):
    cached = build(images, tmp_path)
    results.put(float(sum(cached[i]["inputs"].double().sum() for i in range(13))))


def test_processes_that_start_together(images, tmp_path):
    context = get_context("fork")
    results = context.Queue()
    arguments = (images, tmp_path, results)
    processes = [context.Process(target=_read, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    sums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
    assert len(sums) == 1
    names = [path.suffix for path in (tmp_path / "cache").iterdir()]
    assert sorted(names) == [".images", ".lock", ".npy"]


def test_changes_are_noticed(images, tmp_path, decoded):
    build(images, tmp_path)
    assert len(decoded) == 13
    file = images / "wide.png"
    mmcv.imwrite(np.zeros((40, 96, 3), np.uint8), str(file))
    os.utime(file, (1, 1))
    cached = build(images, tmp_path)
    assert len(decoded) == 26
    rows = [i for i in range(13) if "wide" in cached.get_data_info(i)["img_path"]]
    assert not cached[rows[0]]["inputs"].any()
    file.unlink()
    assert len(build(images, tmp_path)) == 12
    # So are options that change what is decoded.
    gray = [dict(type="LoadImage", imdecode_backend="pillow"), PIPELINE[1]]
    ImageFolder(data_root=str(images), pipeline=gray, cache_dir=f"{tmp_path}/cache")
    assert len(decoded) == 26 + 12 + 12


def test_estimate(images):
    paths = sorted(str(path) for path in images.rglob("*.*"))
    assert estimate_bytes(paths) == 3 * 96 * (12 * 96 + 40)
    assert estimate_bytes([]) == 0


def test_too_large_broken_and_remote(images, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as context:
        module = "snclr_mm.datasets.image_cache.shutil.disk_usage"
        context.setattr(module, lambda path: usage(300000))
        with pytest.raises(OSError, match=r"13 decoded images need about 0\.0 GB.*dir"):
            build(images, tmp_path)
    (images / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png' can't be read"):
        build(images, tmp_path)
    leftovers = {path.suffix for path in (tmp_path / "cache").iterdir()}
    assert leftovers == {".lock"}
    with pytest.raises(ValueError, match=r"'s3://a/b\.png' is not a file.*cache_dir"):
        ImageCache(["s3://a/b.png"], None, str(tmp_path))


@pytest.mark.parametrize(
    "load, message",
    [
        (dict(type="LoadImage", to_float32=True), r"float32 \[96, 96, 3\]"),
        (dict(type="LoadImage", color_type="grayscale"), r"uint8 \[96, 96\]"),
        (dict(type="RandomFlip", prob=0.5), r"begins with LoadImage, not RandomFlip"),
    ],
)
def test_pipelines_that_do_not_fit(images, tmp_path, load, message):
    with pytest.raises(ValueError, match=f"{message}.*dataset"):
        ImageFolder(
            data_root=str(images), pipeline=[load], cache_dir=str(tmp_path / "cache")
        )


def test_links_in_the_folder_are_not_followed(images, tmp_path):
    build(images, tmp_path)
    folder = tmp_path / "cache"
    (lock,) = folder.glob("*.lock")
    for file in folder.iterdir():
        file.unlink()
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    lock.symlink_to(precious)
    with pytest.raises(OSError, match=r"\.lock' is a link.*remove it"):
        build(images, tmp_path)
    lock.unlink()
    for suffix in (".tmp", ".npy", ".images"):
        lock.with_suffix(suffix).symlink_to(precious)
    assert len(build(images, tmp_path).cache[0]) == 96
    assert precious.read_text() == "years of work"


def test_what_does_not_fit_is_decoded_again(images, tmp_path, decoded):
    expected = build(images, tmp_path).cache[3]
    (file,) = (tmp_path / "cache").glob("*.images")
    index = np.load(file.with_suffix(".npy"))
    wrong = index.copy()
    wrong[2, 0] = -5
    for broken in (b"", b"no index", index[:-1], index[:, :3], wrong, index * 1.0):
        decoded.clear()
        if isinstance(broken, bytes):
            file.with_suffix(".npy").write_bytes(broken)
        else:
            np.save(file.with_suffix(".npy"), broken)
        assert np.array_equal(build(images, tmp_path).cache[3], expected)
        assert len(decoded) == 13
    os.truncate(file, 1000)
    assert np.array_equal(build(images, tmp_path).cache[3], expected)
    file.unlink()
    assert np.array_equal(build(images, tmp_path).cache[3], expected)


def test_other_bytes_are_noticed(images, tmp_path):
    cached = build(images, tmp_path)
    (file,) = (tmp_path / "cache").glob("*.images")
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"random")
    cached[1]
    with pytest.raises(ValueError, match=r"Image 0 of .*\.images' is not what was dec"):
        cached[0]


def test_links_in_a_circle_are_named(images):
    (images / "china/round").symlink_to(images)
    with pytest.raises(
        ValueError, match=f"below the image folder '{images}/' go round"
    ):
        ImageFolder(data_root=str(images), pipeline=PIPELINE)
