import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.command import load_tool, tool
from helpers.tiny import CONFIG, REPOSITORY
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from snclr_mm.evaluation import describe_images, protocols

evaluate = load_tool("evaluate.py")
BASELINES = REPOSITORY / "configs/baselines"
MOCOV3 = BASELINES / "mocov3_resnet-tiny_1xb128_fashion-mnist.py"
SWAV = BASELINES / "swav_resnet-tiny_1xb128_fashion-mnist.py"
VOC = REPOSITORY / "configs/_base_/datasets/voc07.py"
TINY = [
    "model.backbone.num_stages=1",
    "model.backbone.stem_channels=8",
    "model.backbone.base_channels=8",
    "model.backbone.strides=(2,)",
    "model.backbone.dilations=(1,)",
    "model.backbone.out_indices=(0,)",
    "model.neck.in_channels=8",
]


def data_options(root, stages=("val",)):
    loaders = ("{}_dataloader", "{}_cfg.bank_dataloader")
    return [
        f"{loader.format(stage)}.dataset.data_root={root}"
        for stage in stages
        for loader in loaders
    ]


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """As a Runner saves it, with a head that evaluation ignores."""
    cfg = Config.fromfile(CONFIG)
    options = dict(option.split("=") for option in TINY)
    cfg.merge_from_dict({key: eval(value) for key, value in options.items()})
    torch.manual_seed(0)
    # A test before this one may have left another scope.
    model = MODELS.build({"_scope_": "mmpretrain", **cfg.model})
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_1.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, path)
    return path


@pytest.fixture
def checkpoint(saved, tmp_path):
    return shutil.copy(saved, tmp_path)


@pytest.fixture
def run(digits_root, tmp_path, monkeypatch):
    """Call tools/evaluate.py on digits, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(checkpoint, *options, config=CONFIG, data=None, tiny=TINY):
        data = data_options(digits_root) if data is None else data
        return evaluate.main(
            [str(config), str(checkpoint), "--device=cpu"]
            + [str(option) for option in options]
            + ["--cfg-options", *tiny, *data]
        )

    return call


# Results


def test_all_protocols(run, checkpoint, tmp_path, capsys):
    out = tmp_path / "new/folder/result.json"
    protocols = ["knn", "linear", "few-shot", "semi-supervised", "svm", "svm-low-shot"]
    record = run(
        *[checkpoint, "--protocols", *protocols, "--out", out, "--train-images=500"],
        *["--per-class", 1, 10, "--draws=2", "--percent", 4, 50, "--shots", 1, 8],
        *["--knn-k", 1, 20, "--knn-temperature", 0.07, 0.2],
    )
    assert json.loads(out.read_text()) == record
    assert list(out.parent.iterdir()) == [out]
    assert list(record["results"]) == protocols
    summary = record["summary"]
    assert list(summary) == [
        *["knn", "linear", "few-shot-1", "few-shot-10"],
        *["semi-supervised-4", "semi-supervised-50"],
        *["svm", "svm-low-shot-1", "svm-low-shot-8"],
    ]
    assert all(15 < value < 100 for value in summary.values())
    assert summary["few-shot-1"] < summary["few-shot-10"] < summary["linear"]
    assert summary["semi-supervised-4"] < summary["semi-supervised-50"]
    assert summary["svm-low-shot-1"] < summary["svm-low-shot-8"] < summary["svm"]
    grid = record["results"]["knn"]["grid"]
    assert [(cell["k"], cell["temperature"]) for cell in grid] == [
        *[(1, 0.07), (1, 0.2), (20, 0.07), (20, 0.2)]
    ]
    assert summary["knn"] == round(grid[2]["accuracy"], 2)
    assert record["train"]["images"] == 500 and record["test"]["images"] == 360
    printed = capsys.readouterr().out
    for name, value in summary.items():
        assert any(
            line.startswith(f"{name} ") and f"{value:10.2f}" in line
            for line in printed.splitlines()
        ), name
    assert str(out) in printed


def test_retrieval(run, checkpoint):
    assert tuple(protocols.PROTOCOLS) == evaluate.PROTOCOLS
    options = ["--protocols", "knn", "retrieval", "--knn-k=1", "--train-images=500"]
    summary = run(checkpoint, *options)["summary"]
    assert summary["retrieval-recall@1"] == summary["knn"]
    assert summary["retrieval-recall@1"] < summary["retrieval-recall@5"]
    assert summary["retrieval-map"] < summary["retrieval-mrr"] < 100


def test_baselines_need_no_checkpoint(run, checkpoint, tmp_path):
    scores, folder = {}, tmp_path / "work_dirs" / CONFIG.stem
    for name, file in (("random", "random0"), ("pixels", "pixels")):
        record = run(name, "--protocols", "knn")
        assert json.loads((folder / f"{file}_val.json").read_text()) == record
        scores[name] = record["summary"]
    assert scores["random"]["knn"] < scores["pixels"]["knn"]
    # The digits are enlarged, which changes little.
    features, labels = load_digits(return_X_y=True)
    knn = KNeighborsClassifier(20, metric="cosine").fit(features[:1437], labels[:1437])
    expected = 100 * knn.score(features[1437:], labels[1437:])
    assert scores["pixels"]["knn"] == pytest.approx(expected, abs=1.5)
    # Random weights come from the seed alone.
    record_of_random = run("random", "--protocols", "knn")
    assert record_of_random["summary"] == scores["random"]
    other = run("random", "--seed=1", "--protocols", "knn")
    assert other["weights"] != record_of_random["weights"]


def test_checkpoint_weights_are_used(run, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    zero = {
        key: torch.zeros_like(value) if key.endswith("conv1.weight") else value
        for key, value in state["state_dict"].items()
    }
    torch.save({"state_dict": zero}, tmp_path / "zero.pth")
    options = ["--protocols", "linear", "--train-images=400"]
    dead = run(tmp_path / "zero.pth", *options)["summary"]
    assert dead["linear"] < 30 < run(checkpoint, *options)["summary"]["linear"]


@pytest.mark.parametrize("config", [MOCOV3, SWAV], ids=lambda path: path.stem[:6])
def test_other_algorithms(run, checkpoint, config):
    """The same backbone gives the same result, whatever pretrained it."""
    options = ["--protocols", "knn", "--train-images=300"]
    tiny = TINY if config == MOCOV3 else [*TINY, "custom_hooks=[]"]
    record = run(checkpoint, *options, config=config, tiny=tiny)
    assert record["summary"] == run(checkpoint, *options)["summary"]


def test_holdout_never_reads_the_test_images(run, checkpoint, digits_root, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for file in digits_root.iterdir():
        readable = file.name.startswith("train-")
        (root / file.name).write_bytes(file.read_bytes() if readable else b"")
    record = run(
        *[checkpoint, "--holdout=300", "--train-images=800", "--protocols", "knn"],
        data=data_options(root),
    )
    assert record["test"] == {
        "dataloader": str(CONFIG),
        "dataset": "val_cfg.bank_dataloader.dataset",
        "settings": record["train"]["settings"],
        "images": 300,
        "sha256": record["test"]["sha256"],
    }
    whole = dict(type="FashionMNIST", data_root=str(root), split="train", pipeline=[])
    last = describe_images(DATASETS.build(whole), range(1137, 1437))
    assert record["test"]["sha256"] == last["sha256"]
    assert record["train"]["images"] == 800
    assert (tmp_path / "epoch_1_holdout.json").exists()


def test_test_split(run, checkpoint, digits_root, tmp_path):
    data = data_options(digits_root, stages=["test"])
    record = run(checkpoint, "--split=test", "--protocols", "knn", data=data)
    assert record["test"]["dataset"] == "test_dataloader.dataset"
    assert record["summary"] == run(checkpoint, "--protocols", "knn")["summary"]


def test_feature_cache(run, checkpoint, tmp_path, monkeypatch):
    options = [f"--feature-cache={tmp_path / 'cache'}", "--protocols", "knn"]
    first = run(checkpoint, *options)["summary"]
    assert len(list((tmp_path / "cache").iterdir())) == 2

    def extract(*args):
        raise AssertionError("extracted again")

    monkeypatch.setattr(protocols, "extract_features", extract)
    assert run(checkpoint, *options)["summary"] == first
    for change in (["--train-images=100"], ["--holdout=9"]):
        with pytest.raises(AssertionError, match="extracted again"):
            run(checkpoint, *options, *change)
    with pytest.raises(AssertionError, match="extracted again"):
        run("random", *options)


def test_results_are_kept(run, checkpoint, tmp_path):
    """Of earlier calls for the same features, and of what precedes an error."""
    options = [f"--out={tmp_path / 'result.json'}", "--train-images=300"]
    options.append("--protocols")
    knn = run(checkpoint, *options, "knn")["results"]["knn"]
    with pytest.raises(ValueError, match="per_class=500"):
        run(checkpoint, *options, "linear", "few-shot", "--per-class", 500)
    record = json.loads((tmp_path / "result.json").read_text())
    assert list(record["results"]) == ["knn", "linear"]
    record = run(checkpoint, *options, "linear")
    assert list(record["results"]) == ["knn", "linear"]
    assert record["results"]["knn"] == knn
    other = run("random", *options, "linear")
    assert list(other["results"]) == ["linear"]
    assert json.loads((tmp_path / "result.old1.json").read_text()) == record


def test_results_of_other_data_are_not_mixed_in(run, checkpoint, digits_root, tmp_path):
    other = shutil.copytree(digits_root, tmp_path / "data")
    options = [f"--out={tmp_path / 'result.json'}", "--protocols"]
    run(checkpoint, *options, "knn", data=data_options(other))
    labels = next(other.glob("t10k-labels*"))
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x09")
    again = run(checkpoint, *options, "linear", data=data_options(other))
    assert list(again["results"]) == ["linear"]
    pipeline = "val_dataloader.dataset.pipeline"
    more = [*data_options(other), f"{pipeline}.1.scale=14"]
    again = run(checkpoint, *options, "knn", data=more)
    assert list(again["results"]) == ["knn"]
    assert len(list(tmp_path.glob("result*.json"))) == 3


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def test_command_from_another_folder(checkpoint, digits_root, tmp_path):
    """The line that tools/compare.py calls, with a checkpoint that has to be trusted.

    In a process of its own: the permission lasts as long as the process.
    """
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "meta": Evil()}, tmp_path / "evil.pth")
    output = tool(
        "evaluate.py",
        *["configs/snclr_resnet-tiny_1xb128_fashion-mnist.py", "evil.pth"],
        *["--protocols", "knn", "linear", "few-shot", "--per-class", "10"],
        *["--train-images", "400", "--holdout", "200", "--trust-checkpoint"],
        *["--cfg-options", *TINY, *data_options(digits_root)],
        cwd=tmp_path,
    )
    assert (tmp_path / "evil").exists()
    summary = json.loads((tmp_path / "evil_holdout.json").read_text())["summary"]
    assert list(summary) == ["knn", "linear", "few-shot-10"]
    assert f"{summary['linear']:10.2f}" in output


# Multi-label data and other data


@pytest.fixture(scope="module")
def voc_root(photos, tmp_path_factory):
    """PASCAL VOC's layout: tiles of two photographs, of which some hold both."""
    root = tmp_path_factory.mktemp("VOC2007")
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    names = {"trainval": [], "test": []}
    generator = np.random.default_rng(0)
    for i in range(120):
        y, x = generator.integers(0, 300), generator.integers(0, 500)
        tiles = [photo[y : y + 64, x : x + 64] for photo in photos]
        kind = i % 4  # bird, cat, both, or cat and a difficult bird
        image = np.hstack(tiles) if kind >= 2 else np.hstack([tiles[kind]] * 2)
        objects = [[("bird", 0)], [("cat", 0)], [("bird", 0), ("cat", 0)]]
        objects.append([("cat", 0), ("bird", 1)])
        cv2.imwrite(str(root / f"JPEGImages/{i:06}.jpg"), image[..., ::-1])
        xml = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult></object>"
            for name, difficult in objects[kind]
        )
        path = root / f"Annotations/{i:06}.xml"
        path.write_text(f"<annotation>{xml}</annotation>")
        names["trainval" if i < 80 else "test"].append(f"{i:06}")
    for split, ids in names.items():
        path = root / f"ImageSets/Main/{split}.txt"
        path.write_text("\n".join(ids) + "\n")
    return root


def voc_options(root):
    loaders = ("val_dataloader", "val_cfg.bank_dataloader")
    return data_options(root) + [
        f"{loader}.{key}"
        for loader in loaders
        for key in ("dataset.metainfo.classes=bird,cat", "num_workers=0")
    ]


def test_voc(run, checkpoint, voc_root):
    data = voc_options(voc_root)
    options = [f"--data={VOC}", "--protocols", "svm", "svm-low-shot", "--draws=2"]
    record = run(checkpoint, *options, data=data)
    assert record["train"]["images"] == 80 and record["test"]["images"] == 40
    svm = record["results"]["svm"]
    assert len(svm["ap"]) == 2
    assert svm["mean_ap"] > 85
    # Positives: 40 of birds, 60 of cats; 32 is the largest of the field's numbers.
    shots = record["results"]["svm-low-shot"]["shots"]
    assert list(shots) == ["1", "2", "4", "8", "16", "32"]
    assert shots["32"]["mean_ap"] > 80


def test_voc_has_several_labels_per_image(run, checkpoint, voc_root):
    options = [f"--data={VOC}", "--protocols", "knn", "svm"]
    with pytest.raises(ValueError, match="--protocols knn: .*several labels per image"):
        run(checkpoint, *options, data=voc_options(voc_root))


@pytest.fixture
def photos_config(image_folder, tmp_path):
    """Two classes of photographs, in MMPretrain's own way: there is no bank."""
    path = tmp_path / "photos.py"
    path.write_text(
        f"""
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(32, 32)),
    dict(type="PackInputs"),
]
dataset = dict(
    type="ImageFolder",
    data_root={str(image_folder)!r},
    with_label=True,
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=8, num_workers=0, dataset=dict(dataset, pipeline=pipeline[:1])
)
val_dataloader = dict(batch_size=8, num_workers=0, dataset=dataset)
val_cfg = dict()
data_preprocessor = dict(to_rgb=False)
"""
    )
    return path


def test_data_of_another_config(run, checkpoint, photos_config, tmp_path, monkeypatch):
    seen = []
    build = evaluate.MODELS.build
    monkeypatch.setattr(
        evaluate.MODELS, "build", lambda config: seen.append(config) or build(config)
    )
    options = [f"--data={photos_config}", "--protocols", "knn", "--knn-k", "1"]
    record = run(checkpoint, *options, data=[])
    assert record["summary"] == {"knn": 100.0}  # each image is its own neighbor
    assert record["train"]["dataset"] == "train_dataloader.dataset"
    preprocessor = seen[0].data_preprocessor
    assert preprocessor.to_rgb is False  # the data's
    assert preprocessor.mean == [72.94, 72.94, 72.94]  # the network's
    assert (tmp_path / "epoch_1_photos_val.json").exists()


def test_channels_of_data_that_do_not_name_them(photos_config):
    """Files are read as BGR, and CIFAR's images are stored as RGB."""
    text = photos_config.read_text()
    photos_config.write_text(text.replace("data_preprocessor = dict(to_rgb=False)", ""))
    cifar = "configs/snclr_resnet-tiny_1xb128_cifar100.py"
    for config, turned in ((REPOSITORY / cifar, True), (photos_config, False)):
        command = [str(config), "random", f"--data={photos_config}"]
        if config == photos_config:  # a network that sees BGR
            config.write_text(config.read_text() + "\nmodel = dict(type='SNCLR')")
        cfg = evaluate.load_config(evaluate.parse_args(command))
        assert cfg.model.data_preprocessor.to_rgb is turned


def test_options_reach_the_preprocessor(photos_config):
    options = ["--cfg-options", "data_preprocessor.mean=[1,2,3]"]
    for data in ([], [f"--data={photos_config}"]):
        args = evaluate.parse_args([str(CONFIG), "random", *data, *options])
        cfg = evaluate.load_config(args)
        assert cfg.model.data_preprocessor.mean == [1, 2, 3]


# Bad input


def test_checkpoint_of_another_architecture(run, checkpoint):
    tiny = ["model.backbone.base_channels=4", *TINY[:2], *TINY[3:]]
    with pytest.raises(ValueError, match=r"of another shape \(layer1"):
        run(checkpoint, tiny=tiny)
    tiny = [option for option in TINY if "stem" not in option]
    tiny = ["model.backbone.depth=50", *tiny, "model.backbone.stem_channels=8"]
    with pytest.raises(ValueError, match=r"\d+ not in the checkpoint \(layer1"):
        run(checkpoint, tiny=tiny)
    whole = ["model.neck.in_channels=128"]  # stages that the checkpoint lacks
    with pytest.raises(ValueError, match=r"\d+ not in the checkpoint"):
        run(checkpoint, tiny=whole)


def test_missing_checkpoint(run):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'lost\.pth'.*random"):
        run("lost.pth")


def test_checkpoint_that_runs_code(run, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "meta": Evil()}, "evil.pth")
    with pytest.raises(SystemExit, match="--trust-checkpoint"):
        run("evil.pth", "--protocols", "knn")
    assert not Path("evil").exists()


def test_unlabeled_data(run, checkpoint, photos_config):
    data = ["train_dataloader.dataset.with_label=False"]
    with pytest.raises(
        ValueError, match="train_dataloader.dataset has images without labels"
    ):
        run(checkpoint, f"--data={photos_config}", data=data)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--holdout=1437"], "--holdout 1437: must be between 1 and 1436"),
        (["--train-images=1438"], "--train-images 1438: .*and 1437"),
        (["--knn-k", 1, 1438], "k=1438 .*bank's 1437 images.*--knn-k"),
        (["--knn-temperature", -1, "--knn-k", 1], "temperature=-1.*--knn-temperature"),
        (["--protocols", "few-shot", "--per-class", 999], "per_class=999 .* has 1"),
        (["--protocols", "semi-supervised", "--percent", 101], "--percent 101: .*100"),
        (["--protocols", "svm-low-shot", "--shots", 999], "999 positives .*--shots"),
    ],
)
def test_more_than_there_is(run, checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        run(checkpoint, *options)


def test_weights_that_are_not_finite(run, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    state["backbone.conv1.weight"] *= torch.nan
    torch.save({"state_dict": state}, tmp_path / "nan.pth")
    with pytest.raises(SystemExit, match=r"backbone\.conv1\.weight is not finite"):
        run(tmp_path / "nan.pth", "--protocols", "knn")


@pytest.mark.parametrize(
    "options", [["--protocols", "knn", "fine-tune"], ["--draws=0"], ["--split=train"]]
)
def test_bad_options(options, capsys):
    with pytest.raises(SystemExit):
        evaluate.main([str(CONFIG), "random", *options])
    assert options[0].split("=")[0] in capsys.readouterr().err
