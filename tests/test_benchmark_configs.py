"""configs/benchmarks/classification: from a pretraining checkpoint to an accuracy."""

import re
import runpy
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import load_tool
from helpers.configs import build_on_meta, cases, check_parts, save_backbone
from helpers.configs import load as load_config
from helpers.ranks import run_on_ranks
from helpers.tiny import CONFIG, REPOSITORY, build_runner, tiny_config
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS

from snclr_mm.cli import check_pretrained

FOLDER = "benchmarks/classification"
CASES = cases(FOLDER)
splits = load_tool("data/make_semi_supervised_splits.py")
#: Without the data sets that differ in names and numbers alone.
DIFFERENT = [
    (path, choice)
    for path, choice in CASES
    if not choice.startswith("DATASET") or choice[8:] in ("cifar10", "sun397")
]
LINEAR = "linear_resnet-tiny_1xb128-coslr-20e_fashion-mnist.py"
FINETUNE = "finetune_resnet-tiny_1xb128-coslr-20e_fashion-mnist.py"


def load(name, choice=""):
    return load_config(f"{FOLDER}/{name}", choice)


class Start(Hook):
    """Keeps the model that training starts from."""

    def before_train(self, runner):
        self.state = deepcopy(runner.model.state_dict())


def train(cfg, checkpoint, work_dir):
    """Train and evaluate as tools/train.py; returns the Runner and the start."""
    cfg.work_dir = str(work_dir)
    cfg.launcher = "none"
    cfg.randomness = dict(seed=0)
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
    runner = build_runner(cfg)
    check_pretrained(runner.model)
    start = Start()
    runner.register_hook(start)
    runner.train()
    return runner, start.state


def check_backbone(state, checkpoint, frozen):
    """Is each tensor of the backbone that of the checkpoint?"""
    expected = CheckpointLoader.load_checkpoint(str(checkpoint))["state_dict"]
    expected = {k: v for k, v in expected.items() if k.startswith("backbone.")}
    found = {k: v for k, v in state.items() if k.startswith("backbone.")}
    assert list(found) == list(expected)
    same = {key: torch.equal(found[key], expected[key]) for key in found}
    if frozen:
        assert all(same.values()), [key for key in same if not same[key]]
    else:
        assert sum(same.values()) < 0.2 * len(same)


# Every config


@pytest.mark.parametrize("path, choice", DIFFERENT)
def test_config_builds(path, choice):
    cfg = load_config(path, choice)
    assert cfg.custom_imports.imports == ["snclr_mm"]
    init_cfg = cfg.model.backbone.init_cfg
    assert (init_cfg.type, init_cfg.checkpoint) == ("Pretrained", "")
    assert init_cfg.prefix == "backbone."
    stem = Path(path).stem
    gpus, batch = map(int, re.search(r"_(\d+)xb(\d+)-", stem).groups())
    if "resnet-tiny" in stem and choice == "PERCENT=1":
        batch = 32  # as its first lines say
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    model = build_on_meta(cfg.model)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    if stem.startswith("linear"):
        assert all(name.startswith("head.classifiers.") for name in trained)
        assert len(trained) == 2 * len(cfg.model.head.lr_factors)
    else:
        assert any(name.startswith("backbone.") for name in trained)
    with pytest.raises(
        ValueError, match="--pretrained FILE, or set model.backbone.init_cfg"
    ):
        check_pretrained(model)
    check_parts(cfg)
    assert choice.split("=")[-1] in cfg.get("work_dir", "")


@pytest.mark.parametrize(
    ("pretraining", "benchmarks"),
    [
        ("snclr_r50_8xb256.py", "_r50_"),
        ("imagenet/snclr_vit-small-p16_8xb512-300e_in1k.py", "vit-small-p16"),
        ("imagenet/snclr_vit-base-p16_8xb512-300e_in1k.py", "vit-base-p16"),
        ("snclr_resnet-tiny_1xb128_fashion-mnist.py", "_resnet-tiny_"),
    ],
)
def test_backbone_is_that_of_pretraining(pretraining, benchmarks):
    def backbone(path, choice=""):
        config = dict(load_config(path, choice).model.backbone)
        if config.get("norm_cfg"):  # SyncBN needs a GPU to be built
            config.pop("norm_cfg")
        module = build_on_meta(config)
        heads = [m.num_heads for m in module.modules() if hasattr(m, "num_heads")]
        return heads, {k: v.shape for k, v in module.state_dict().items()}

    expected = backbone(pretraining)
    found = [case for case in DIFFERENT if any(benchmarks in part for part in case)]
    assert found
    for case in found:
        assert backbone(*case) == expected, case


# ImageNet


@pytest.fixture(scope="module")
def imagenet(image_folder, tmp_path_factory):
    """ImageNet's layout with two classes of 24 images."""
    root = tmp_path_factory.mktemp("imagenet")
    for split in ("train", "val"):
        (root / split).symlink_to(image_folder)
    labels = splits.read_labels(str(root / "train"))
    for percent in (1, 10):
        path = root / f"meta/train_{percent}percent.txt"
        splits.write(path, splits.draw(labels, 50), labels)
    return root


def shrink_imagenet(cfg, root, size=32):
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.batch_size = 8
        loader.dataset.data_root = str(root)
        loader.dataset.metainfo = dict(classes=["china", "flower"])
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.type == "RandomResizedCrop":
            transform.scale = size
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline[1].scale = size
        loader.dataset.pipeline[2].crop_size = size
    cfg.train_cfg.max_epochs = 1
    backbone = cfg.model.backbone
    if backbone.type == "ResNet":
        backbone.base_channels = backbone.stem_channels = 4
        cfg.model.head.in_channels = 128
    else:
        backbone.arch = dict(
            embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
        )
        backbone.img_size = size
        cfg.model.head.in_channels = 16
        if "frozen_stages" in backbone:
            backbone.frozen_stages = 2


@pytest.mark.parametrize(
    "name, choice",
    [
        ("linear_vit-small-p16_8xb128-coslr-90e_in1k.py", ""),
        ("finetune_vit_8xb64-coslr-150e_in1k.py", "BACKBONE=vit-small-p16"),
        ("semi_r50_8xb32-steplr-20e_in1k.py", "PERCENT=1"),
    ],
)
def test_imagenet_configs_train_and_evaluate(name, choice, imagenet, tmp_path):
    """Frozen or not, ResNet and ViT, from a folder and from a list."""
    cfg = load(name, choice)
    shrink_imagenet(cfg, imagenet)
    checkpoint = save_backbone(cfg.model.backbone, tmp_path / "pretraining.pth")

    runner, start = train(cfg, checkpoint, tmp_path / "run")
    assert runner.iter == (3 if name.startswith("semi") else 6)
    check_backbone(start, checkpoint, frozen=True)
    linear = name.startswith("linear")
    check_backbone(runner.model.state_dict(), checkpoint, frozen=linear)
    metrics = runner.test()
    assert 0 <= metrics["accuracy/top1"] <= 100
    if linear:
        assert metrics["accuracy/best_lr_factor"] in cfg.model.head.lr_factors


def test_semi_supervised_learning_rates():
    """SwAV's published commands."""
    for percent, backbone, head in ((1, 0.02, 5), (10, 0.01, 0.2)):
        cfg = load("semi_r50_8xb32-steplr-20e_in1k.py", f"PERCENT={percent}")
        assert cfg.optim_wrapper.optimizer.lr == backbone
        mult = cfg.optim_wrapper.paramwise_cfg.custom_keys["head."].lr_mult
        assert backbone * mult == pytest.approx(head)
        assert (
            cfg.train_dataloader.dataset.ann_file == f"meta/train_{percent}percent.txt"
        )


# Fashion-MNIST's configs, on digits


@pytest.fixture(scope="module")
def pretrained(digits_root, tmp_path_factory):
    """A checkpoint of a tiny SNCLR training."""
    work_dir = tmp_path_factory.mktemp("snclr")
    build_runner(tiny_config(digits_root, work_dir, train_cfg__max_epochs=1)).train()
    return work_dir / "epoch_1.pth"


def tiny_backbone(cfg, root):
    """Options for the backbone that tests/tiny.py pretrains, and for digits."""
    names = "num_stages stem_channels base_channels strides dilations out_indices"
    small = tiny_config(root, "").model.backbone
    options = {f"model.backbone.{name}": small[name] for name in names.split()}
    options["model.head.in_channels"] = 8
    if "frozen_stages" in cfg.model.backbone:
        options["model.backbone.frozen_stages"] = 1
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        options[f"{loader}.dataset.data_root"] = str(root)
    options["train_dataloader.batch_size"] = 16
    options["train_dataloader.num_workers"] = 0
    return options


def tiny(name, root, choice="", **overrides):
    cfg = load(name, choice)
    cfg.merge_from_dict(tiny_backbone(cfg, root))
    cfg.merge_from_dict(
        {"train_cfg.max_epochs": 1, "val_dataloader.dataset.indices": 100, **overrides}
    )
    return cfg


def test_linear_probe_is_many_single_ones(digits_root, pretrained, tmp_path):
    """Through a whole training with augmentation and schedule, and its evaluation."""
    zero = dict(type="Constant", layer="Linear", val=0)
    options = {
        "train_dataloader.dataset.indices": 160,
        "model.head.lr_factors": (0.3, 3),
        "model.head.init_cfg": zero,
    }
    runner, start = train(
        tiny(LINEAR, digits_root, **options), pretrained, tmp_path / "all"
    )
    check_backbone(start, pretrained, frozen=True)
    check_backbone(runner.model.state_dict(), pretrained, frozen=True)
    metrics = runner.val_loop.run()
    best = max(metrics["accuracy/top1_x0.3"], metrics["accuracy/top1_x3"])
    assert metrics["accuracy/top1"] == best > 0

    for i, factor in enumerate((0.3, 3)):
        cfg = tiny(LINEAR, digits_root, **options)
        cfg.model.head = dict(
            type="LinearClsHead", num_classes=10, in_channels=8, init_cfg=zero
        )
        cfg.optim_wrapper.pop("constructor")
        cfg.optim_wrapper.optimizer.lr *= factor
        cfg.val_evaluator = cfg.test_evaluator = dict(type="Accuracy", topk=1)
        single, _ = train(cfg, pretrained, tmp_path / f"{i}")
        ours = runner.model.head.classifiers[i]
        torch.testing.assert_close(ours.weight, single.model.head.fc.weight)
        torch.testing.assert_close(ours.bias, single.model.head.fc.bias)
        assert ours.weight.abs().max() > 1e-3
        top1 = single.val_loop.run()["accuracy/top1"]
        assert metrics[f"accuracy/top1_x{factor:g}"] == pytest.approx(top1)


def test_fine_tuning(digits_root, pretrained, tmp_path):
    cfg = tiny(FINETUNE, digits_root, **{"train_dataloader.dataset.indices": 64})
    runner, start = train(cfg, pretrained, tmp_path)
    assert runner.iter == 4
    check_backbone(start, pretrained, frozen=True)
    check_backbone(runner.model.state_dict(), pretrained, frozen=False)
    groups = {id(g["params"][0]): g for g in runner.optim_wrapper.param_groups}
    ours = groups[id(runner.model.head.fc.weight)]["initial_lr"]
    theirs = groups[id(runner.model.backbone.conv1.weight)]["initial_lr"]
    assert ours == pytest.approx(10 * theirs)
    assert runner.test()["accuracy/top1"] > 0


def test_semi_supervised(digits_root, pretrained, tmp_path):
    name = "semi_resnet-tiny_1xb128-coslr-50e_fashion-mnist.py"
    for percent in (1, 10):
        file = load(name, f"PERCENT={percent}").train_dataloader.dataset.split_file
        assert file == f"train_{percent}percent.txt"
    labels = splits.read_labels(
        str(CONFIG), {"train_dataloader.dataset.data_root": str(digits_root)}
    )
    for percent, images in ((10, 143), (1, 14)):
        split = tmp_path / f"{percent}.txt"
        splits.write(split, splits.draw(labels, percent), labels)
        assert len(split.read_text().splitlines()) == images
    options = {
        "train_dataloader.dataset.split_file": str(split),
        "train_dataloader.drop_last": False,
    }
    cfg = tiny(name, digits_root, "PERCENT=1", **options)
    runner, start = train(cfg, pretrained, tmp_path / "run")
    assert len(runner.train_dataloader.dataset) == images == 14
    assert runner.iter == 1
    check_backbone(start, pretrained, frozen=True)
    check_backbone(runner.model.state_dict(), pretrained, frozen=False)


def train_on_rank(rank, arguments):
    """tools/train.py on one of two ranks."""
    run_train(*arguments, "--launcher=pytorch")


def run_train(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *arguments])
        runpy.run_path(str(REPOSITORY / "tools/train.py"), run_name="__main__")


def test_command_line(digits_root, pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {
        **tiny_backbone(load(LINEAR), digits_root),
        "model.head.lr_factors": "0.1,10",
        "train_dataloader.dataset.indices": 64,
        "val_dataloader.dataset.indices": 50,
        "train_cfg.max_epochs": 1,
    }
    options = [
        f"{key}=({value[0]},)" if isinstance(value, tuple) else f"{key}={value}"
        for key, value in options.items()
    ]
    arguments = [f"configs/{FOLDER}/{LINEAR}", f"--pretrained={pretrained}"]
    options = ["--cfg-options", *options]
    run_on_ranks(2, train_on_rank, [*arguments, *options])
    folder = tmp_path / f"work_dirs/{Path(LINEAR).stem}"
    (log,) = folder.glob("*/*.log")
    log = log.read_text()
    assert "accuracy/top1_x0.1: " in log and "accuracy/best_lr_factor" in log
    state = CheckpointLoader.load_checkpoint(str(folder / "epoch_1.pth"))["state_dict"]
    check_backbone(state, pretrained, frozen=True)

    # It refuses before it trains.
    options.append("model.backbone.init_cfg.prefix=encoder.")
    with pytest.raises(ValueError, match=r"the 0 tensors under 'encoder\.'"):
        run_train(*arguments, "--work-dir=refused", *options)
    assert not list(Path("refused").glob("*.pth"))


# Transfer


LINEAR_TRANSFER = "transfer/linear_r50_1xb256-coslr-100e.py"
FINETUNE_TRANSFER = "transfer/finetune_r50_1xb64-coslr-5k.py"
DATA = [choice for path, choice in CASES if path.endswith(LINEAR_TRANSFER)]


@pytest.mark.parametrize("choice", DATA)
def test_transfer_datasets(choice):
    """Classes, metric and splits, and both configs of each dataset."""
    linear, finetune = (load(n, choice) for n in (LINEAR_TRANSFER, FINETUNE_TRANSFER))
    dataset = linear.train_dataloader.dataset
    cls = DATASETS.get(dataset.type)
    classes = cls.METAINFO.get("classes")  # None where MMPretrain has no names
    published = {"Flowers102": 102, "DTD": 47}.get(dataset.type)
    num_classes = published if classes is None else len(classes)
    # Ericsson et al., CVPR 2021, as SimCLR and BYOL.
    macro = {"Flowers102", "OxfordIIITPet", "FGVCAircraft", "Caltech101"}
    assert linear.val_evaluator.mean_per_class == (dataset.type in macro)
    metric = finetune.val_evaluator[0]
    assert metric.type == ("SingleLabelMetric" if dataset.type in macro else "Accuracy")
    for cfg in (linear, finetune):
        assert choice.removeprefix("DATASET=") in cfg.work_dir
        assert cfg.model.head.num_classes == num_classes
        assert cfg.train_dataloader.dataset.type == dataset.type
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            assert loader.dataset.type == dataset.type
            assert loader.dataset.split == "test"
            assert loader.dataset.data_root == dataset.data_root
            decoder = loader.dataset.pipeline[0].get("imdecode_backend")
            assert decoder == ("pillow" if dataset.type == "SUN397" else None)
        assert cfg.train_dataloader.dataset.split in ("train", "trainval")
        assert cfg.data_preprocessor.to_rgb == ("cifar" not in choice)


def test_transfer_covers_ten_datasets():
    types = {load(LINEAR_TRANSFER, c).train_dataloader.dataset.type for c in DATA}
    assert len(types) == 10


@pytest.fixture
def caltech(image_folder, tmp_path):
    """Caltech-101's layout with two of its classes."""
    root = tmp_path / "caltech"
    (root / "meta").mkdir(parents=True)
    (root / "101_ObjectCategories").symlink_to(image_folder)
    for split, numbers in (("train", range(12)), ("test", range(12, 18))):
        (root / f"meta/{split}.txt").write_text(
            "".join(
                f"{name}/{i}.{'jpg' if i % 2 else 'png'} {label}\n"
                for label, name in enumerate(("china", "flower"))
                for i in numbers
            )
        )
    return root


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        (LINEAR_TRANSFER, "accuracy/mean_per_class"),
        (FINETUNE_TRANSFER, "single-label/recall"),
    ],
)
def test_transfer_trains_and_evaluates(name, metric, caltech, tmp_path):
    cfg = load(name, "DATASET=caltech101")
    shrink_imagenet(cfg, caltech)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pop("metainfo")
    cfg.train_cfg.pop("max_epochs", None)
    if cfg.train_cfg.type == "IterBasedTrainLoop":
        cfg.train_cfg.max_iters = 3
    else:
        cfg.train_cfg.max_epochs = 1
    checkpoint = save_backbone(cfg.model.backbone, tmp_path / "pretraining.pth")
    runner, start = train(cfg, checkpoint, tmp_path / "run")
    assert runner.iter == 3
    check_backbone(start, checkpoint, frozen=True)
    assert 0 <= runner.test()[metric] <= 100


@pytest.mark.parametrize("name", ["cifar10", "dtd"])
def test_transfer_images_are_normalized_rgb(name, photos, tmp_path):
    """Arrays in memory (CIFAR, RGB) and files give the network the same colors."""
    import mmcv

    cfg = load(LINEAR_TRANSFER, f"DATASET={name}")
    photo = photos[1][:224, :224]
    results = dict(img=photo)
    if name != "cifar10":
        path = str(tmp_path / "a.png")
        mmcv.imwrite(photo[..., ::-1].copy(), path)
        results = dict(img_path=path)
    for transform in cfg.test_dataloader.dataset.pipeline:
        results = TRANSFORMS.build(transform).transform(results)
    preprocess = MODELS.build(cfg.data_preprocessor)
    batch = dict(inputs=[results["inputs"]], data_samples=[results["data_samples"]])
    inputs = preprocess(batch)["inputs"][0].permute(1, 2, 0).numpy()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(inputs, (photo / 255 - mean) / std, atol=2e-5)
