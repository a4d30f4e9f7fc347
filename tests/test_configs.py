"""Pretraining configs: every one builds, one of each family trains and evaluates."""

import re
from pathlib import Path

import mmpretrain
import pytest
import torch
from helpers.command import load_tool
from helpers.configs import (
    CONFIGS,
    build_on_meta,
    cases,
    check_parts,
    full_schedule,
    load,
)
from helpers.shrink import shrink
from helpers.tiny import REPOSITORY, build_runner
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmpretrain.registry import MODELS

from snclr_mm.cli.schedules import fit_schedule
from snclr_mm.evaluation import pool_features

MOCOV3 = Path(mmpretrain.__path__[0]) / ".mim/configs/mocov3"
CASES = [case for case in cases() if not case[0].startswith("benchmarks/")]
RECIPES = re.findall(
    r"^```python\n(.+?)^```", (REPOSITORY / "docs/recipes.md").read_text(), re.M | re.S
)
#: A config of each family, which differs from the others in how it trains.
FAMILIES = {
    "headline": "snclr_r50_8xb256.py",
    "multi-crop": "imagenet/snclr_r50_8xb256-multi-crop-100e_in1k.py",
    "augmented on the GPU": "imagenet/snclr_r50_8xb256-gpu-aug-100e_in1k.py",
    "released, ViT": "imagenet/snclr-released_vit-small-p16_32xb128-300e_in1k.py",
    "cached images": "small_images/snclr_r18_1xb256-gpu-aug-200e_small-images.py",
    "by iterations, no labels": "small_images/"
    "snclr_r18-half_1xb128-1500i_tree-crowns.py",
    "SwAV": "baselines/swav_r50_8xb256-100e_in1k.py",
    "InfoNCE": "baselines/mocov3_r50_8xb256-100e_in1k.py",
    "NNCLR": "baselines/nnclr_r50_8xb256-100e_in1k.py",
    **{
        method: f"baselines/{method}_resnet-tiny_1xb128_fashion-mnist.py"
        for method in ("msf", "mnn", "ressl", "sce", "nnbyol", "pnnclr")
    },
    "Swin": "other_algorithms/snclr_swin-tiny_8xb512-300e_in1k.py",
}


def test_number_of_files():
    """More of them hide what there is: a combination is written, not shipped."""
    assert len(list(CONFIGS.rglob("*.py"))) <= 76


@pytest.mark.parametrize("path, choice", CASES)
def test_builds(path, choice):
    """Model, transforms, metrics and hooks; and images can be prepared for it."""
    if "timm" in path:
        pytest.importorskip("timm")
    cfg = load(path, choice)
    assert cfg.custom_imports.imports == ["snclr_mm"]
    check_parts(cfg)
    types = [transform.type for transform in cfg.test_dataloader.dataset.pipeline]
    assert types[0] == "LoadImage" and types[-1] == "PackInputs"
    # MMPretrain's default is raw BGR.
    assert len(cfg.data_preprocessor.mean) == len(cfg.data_preprocessor.std) == 3
    assert isinstance(cfg.data_preprocessor.to_rgb, bool)
    assert None not in (cfg.test_cfg, cfg.test_evaluator)


class Watch(Hook):
    """Notes the weights that training starts from, and the losses."""

    def before_train(self, runner):
        self.start = [p.detach().clone() for p in runner.model.parameters()]
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs["loss"])

    def moved(self, runner):
        pairs = zip(self.start, runner.model.parameters(), strict=True)
        return sum(not torch.equal(before, after) for before, after in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_and_evaluates(family, image_folder, tmp_path):
    cfg = shrink(load(FAMILIES[family]), image_folder, tmp_path)
    runner = build_runner(cfg)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    assert runner.iter == len(watch.losses) == 2
    assert all(torch.as_tensor(loss).isfinite() for loss in watch.losses)
    assert watch.moved(runner) > 0
    scores = [k for k in runner.message_hub.log_scalars if k.startswith("val/")]
    assert bool(scores) == (cfg.get("val_cfg") is not None)


def test_widths_fit_at_full_size():
    """The test above shrinks each width to fit; here none is changed."""
    widths = {}
    for path, choice in CASES:
        model = load(path, choice).model
        key = str(model.backbone)
        if key not in widths:
            if model.backbone.type == "TIMMBackbone":
                pytest.importorskip("timm")
            network = build_on_meta(model.backbone)
            network.eval()  # some return nothing
            images = torch.zeros(1, 3, 224, 224, device="meta")
            widths[key] = pool_features(network(images)).shape[1]
        neck, head = model.get("neck"), model.head
        first = neck if neck and "in_channels" in neck else head
        assert first.in_channels == widths[key], path
        parts = [head.get(name) for name in ("predictor", "queue", "attention")]
        keys = ("in_channels", "out_channels", "dim")
        inner = {part[key] for part in parts if part for key in keys if key in part}
        assert not inner or inner == {neck.out_channels}, path


# {gpus}xb{batch}[-...]-{epochs}e
NUMBERS = re.compile(r"_(\d+)xb(\d+)(?:-[a-z]\w+)*-(\d+)e_")


@pytest.mark.parametrize(
    "path, choice",
    # But those whose schedule is a stock one.
    [c for c in CASES if not re.match("other_algorithms|baselines/nnbyol_r50", c[0])],
)
def test_the_schedule_ends_with_training(path, choice):
    """Also where ``train_cfg.max_epochs`` is changed."""
    cfg = load(path, choice)
    assert not {"end", "T_max"} & {*cfg.param_scheduler[-1]}
    assert fit_schedule(cfg) == []


@pytest.mark.parametrize(
    "path, choice",
    [
        c
        for c in CASES
        if re.match("imagenet|small_images", c[0]) and "half" not in c[0]
    ],
)
def test_recipe_does_what_its_name_says(path, choice):
    cfg = load(path, choice)
    gpus, batch, epochs = map(int, NUMBERS.search(path).groups())
    wrapper = cfg.optim_wrapper
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    warm_up, cosine = full_schedule(cfg)
    assert cfg.train_cfg.max_epochs == cosine["end"] == epochs
    assert warm_up["end"] == cosine["begin"] == epochs - cosine["T_max"]
    lr = wrapper.optimizer.lr / (gpus * batch / 256)
    assert lr == pytest.approx(_base_lr(path, epochs))
    assert cfg.model.base_momentum == (0.004 if epochs == 800 else 0.01)
    if path.startswith("imagenet"):
        assert wrapper.type == "AmpOptimWrapper"
        assert (wrapper.get("dtype"), wrapper.loss_scale) == (None, "dynamic")
        multi_view = cfg.train_dataloader.dataset.pipeline[1]
        sizes = [view[0].scale for view in multi_view.transforms]
        if "multi-crop" in path:
            assert (multi_view.num_views, sizes) == ([1, 1, 6], [224, 224, 96])
        else:
            assert (multi_view.num_views, sizes) == ([1, 1], [224, 224])
    else:
        assert choice.removeprefix("DATASET=") in cfg.work_dir


def _base_lr(name, epochs):
    """Per 256 images: MoCo v3's, the authors' start.sh, and lightly's for CIFAR-10."""
    if "released" in name:
        return 1.5e-5
    if "vit" in name:
        return 1.5e-4
    if "r18" in name:
        return 0.12
    return 0.6 if epochs == 100 else 0.3


def test_headline_is_reachable_by_both_names():
    long = load("imagenet/snclr_r50_8xb256-100e_in1k.py").to_dict()
    assert load("snclr_r50_8xb256.py").to_dict() == long


@pytest.mark.parametrize(
    "choice, size, classes, rgb",
    [
        ("cifar10", 32, "CIFAR10", True),
        ("cifar100", 32, "CIFAR100", True),
        ("tiny-imagenet", 64, "CustomDataset", False),
        ("stl10", 96, "CustomDataset", False),
    ],
)
def test_small_images(choice, size, classes, rgb):
    """Sizes, folders and the order of the channels."""
    path = "small_images/snclr_r18_1xb256-200e_small-images.py"
    cfg = load(path, f"DATASET={choice}")
    for view in cfg.train_dataloader.dataset.pipeline[1].transforms:
        by_type = {transform.type: transform for transform in view}
        assert by_type["RandomResizedCrop"].scale == size
        red = by_type["RandomGrayscale"].channel_weights[0 if rgb else 2]
        assert red == 0.2989
    assert cfg.data_preprocessor.to_rgb == (not rgb)
    datasets = [
        cfg.train_dataloader.dataset,
        cfg.val_cfg.bank_dataloader.dataset,
        cfg.val_dataloader.dataset,
    ]
    assert [d.type for d in datasets[1:]] == [classes] * 2
    if rgb:
        assert [d.split for d in datasets] == ["train", "train", "test"]
        assert datasets[2].test_mode
    else:
        folders = [d.data_root.removeprefix(f"data/{choice}/") for d in datasets]
        assert (
            folders
            == dict(
                stl10=["unlabeled", "train", "test"],
                **{"tiny-imagenet": ["train", "train", "val"]},
            )[choice]
        )


def test_unknown_choices_are_refused():
    pairs = {(path, choice.split("=")[0]) for path, choice in cases() if choice}
    known = {"DATASET", "PERCENT", "BACKBONE", "RECIPE", "SEGMENTOR"}
    assert {v for _, v in pairs} == known
    for path, variable in pairs:
        if path.startswith("baselines/"):  # names a file of this project
            with pytest.raises(FileNotFoundError, match=r"snclr_x\.py"):
                load(path, f"{variable}=x")
        elif variable != "SEGMENTOR":  # names a file of MMSegmentation
            with pytest.raises(ValueError, match=f"{variable}=x is unknown: use one"):
                load(path, f"{variable}=x")


# Variants


@pytest.fixture
def compose(tmp_path):
    """text -> the config that a user has written beside configs/."""
    (tmp_path / "configs").symlink_to(CONFIGS)

    def read(text):
        (tmp_path / "mine.py").write_text(text)
        return Config.fromfile(tmp_path / "mine.py")

    return read


def find(*words):
    """The snippet of docs/recipes.md that has these words."""
    (snippet,) = (s for s in RECIPES if all(word in s for word in words))
    return snippet


def test_larger_batch_by_accumulation_in_bfloat16(compose):
    cfg = compose(find("800e", "accumulative_counts", "bf16"))
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype) == ("AmpOptimWrapper", "bfloat16")
    assert wrapper.loss_scale == 1.0
    assert wrapper.accumulative_counts == 2
    assert wrapper.optimizer.lr == pytest.approx(0.3 * 4096 / 256)
    assert wrapper.optimizer.weight_decay == 1.5e-6
    # The average moves as far in one step of the optimizer, however many parts it has.
    moved = 1 - (1 - cfg.model.base_momentum) ** 2
    assert moved == pytest.approx(0.004, rel=0.01)
    check_parts(cfg)


def test_same_batch_with_less_memory(compose):
    cfg = compose(find("vit-base", "accumulative_counts"))
    base = load("imagenet/snclr_vit-base-p16_8xb512-300e_in1k.py")
    assert cfg.optim_wrapper == {**base.optim_wrapper, "accumulative_counts": 4}
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    assert 4 * cfg.train_dataloader.batch_size == base.train_dataloader.batch_size
    moved = 1 - (1 - cfg.model.base_momentum) ** 4
    assert moved == pytest.approx(base.model.base_momentum, rel=0.01)


def test_multi_crop_of_a_vit_with_accumulation(compose, image_folder, tmp_path):
    cfg = compose(find("multi_crop", "vit-small"))
    views = cfg.train_dataloader.dataset.pipeline[1]
    assert views.num_views == [1, 1, 6]
    crops = [(v[0].scale, v[0].crop_ratio_range) for v in views.transforms]
    assert crops == [(224, (0.08, 1.0))] * 2 + [(96, (0.05, 0.14))]
    # The local views' colors are those of the large ones.
    large, local = (
        {transform.type: transform for transform in views.transforms[i]} for i in (1, 2)
    )
    for kind in ("RandomApply", "RandomGrayscale", "RandomFlip"):
        assert local[kind] == large[kind]
    assert local["GaussianBlur"] == {**large["GaussianBlur"], "prob": 0.5}
    assert cfg.optim_wrapper.dtype == "bfloat16"
    check_parts(cfg)


def test_fsdp(compose):
    cfg = compose(find("fsdp"))
    assert cfg.runner_type == "FlexibleRunner"
    assert cfg.strategy.type == "ResumableFSDPStrategy"
    base = load("imagenet/snclr_vit-base-p16_8xb512-300e_in1k.py")
    base.optim_wrapper.optimizer.fused = False
    for key in ("model", "optim_wrapper", "train_dataloader"):
        assert cfg[key] == base[key]


def test_bfloat16_from_the_command_line():
    options = re.search(
        r"(optim_wrapper\.dtype=\S+) (optim_wrapper\.loss_scale=\S+)",
        (REPOSITORY / "docs/recipes.md").read_text(),
    )
    cfg = load("snclr_r50_8xb256.py")
    pairs = (option.split("=") for option in options.groups())
    cfg.merge_from_dict({k: DictAction._parse_iterable(v) for k, v in pairs})
    variant = load("_base_/variants/bf16.py").bf16
    assert cfg.optim_wrapper == {**load("snclr_r50_8xb256.py").optim_wrapper, **variant}


# What recipes are made of


@pytest.mark.parametrize(
    "ours, stock",
    [
        ("snclr_r50_8xb256-300e_in1k", "resnet50_8xb512-amp-coslr-300e_in1k"),
        ("snclr_r50_8xb256-800e_in1k", "resnet50_8xb512-amp-coslr-800e_in1k"),
        *(
            (
                f"snclr_vit-{size}-p16_8xb512-300e_in1k",
                f"vit-{size}-p16_16xb256-amp-coslr-300e_in1k",
            )
            for size in ("small", "base")
        ),
    ],
)
def test_recipes_are_mocov3s(ours, stock):
    cfg = load(f"imagenet/{ours}.py")
    stock = load(MOCOV3 / f"mocov3_{stock}.py")
    assert full_schedule(cfg) == full_schedule(stock)
    assert cfg.train_cfg.max_epochs == stock.train_cfg.max_epochs
    stock.optim_wrapper.optimizer.lr *= (
        cfg.auto_scale_lr.base_batch_size / stock.auto_scale_lr.base_batch_size
    )
    # Faster kinds of the same optimizers.
    faster = dict(LARS=dict(type="ForeachLARS"), AdamW=dict(fused=True))
    optimizer = stock.optim_wrapper.optimizer
    assert cfg.optim_wrapper.optimizer == {**optimizer, **faster[optimizer.type]}
    if "vit" in ours:  # weight decay on all parameters
        assert not {"paramwise_cfg"} & {*cfg.optim_wrapper, *stock.optim_wrapper}
    for part in ("backbone", "neck", "base_momentum"):
        assert cfg.model[part] == stock.model[part]
    head, stock_head = cfg.model.head, stock.model.head
    assert head.predictor == stock_head.predictor
    assert head.temperature == stock_head.temperature
    assert head.loss_weight == stock_head.loss.loss_weight
    views, stock_views = (c.train_dataloader.dataset.pipeline[1] for c in (cfg, stock))
    assert views == stock_views
    assert cfg.get("find_unused_parameters") == stock.get("find_unused_parameters")


SMALL = "small_images/snclr_r18_1xb256"


@pytest.mark.parametrize(
    "config, base, choice",
    [
        ("imagenet/snclr_r50_8xb256-gpu-aug-100e_in1k", "snclr_r50_8xb256", ""),
        *(
            (f"{SMALL}-gpu-aug-200e_small-images", f"{SMALL}-200e_small-images", choice)
            for choice in ("DATASET=tiny-imagenet", "DATASET=cifar10")
        ),
        (
            "snclr_resnet-tiny_1xb128-gpu-aug_fashion-mnist",
            "snclr_resnet-tiny_1xb128_fashion-mnist",
            "",
        ),
    ],
)
def test_gpu_aug_moves_the_same_transforms(config, base, choice):
    cfg, base = (load(f"{c}.py", choice).to_dict() for c in (config, base))
    multi_view = base["train_dataloader"]["dataset"]["pipeline"][1]
    preprocessor = cfg["data_preprocessor"]
    for key in ("mean", "std", "to_rgb"):
        assert preprocessor[key] == base["data_preprocessor"][key]
    views = preprocessor["transforms"]
    num_views = preprocessor.get("num_views", [1] * len(views))
    left = cfg["train_dataloader"]["dataset"]["pipeline"][1]
    if left["type"] == "MultiView":
        crops = [dict(crop, type="RandomResizedCrop") for (crop,) in left["transforms"]]
        views = [[crop, *view] for crop, view in zip(crops, views, strict=True)]
        assert left["num_views"] == num_views
    assert views == multi_view["transforms"]
    assert num_views == multi_view["num_views"]
    for key in ("model", "optim_wrapper", "param_scheduler", "train_cfg", "val_cfg"):
        assert cfg[key] == base[key]
    images = "tiny-imagenet" in choice  # those of CIFAR are in memory
    assert ("cache_dir" in cfg["train_dataloader"]["dataset"]) == images


@pytest.mark.parametrize("method", ["mocov3", "swav", "nnclr"])
def test_baselines_differ_in_the_method_alone(method):
    """Data, schedule, evaluation and backbone are SNCLR's; SwAV has no predictor."""
    reference = load("snclr_r50_8xb256.py").to_dict()
    baseline = load(f"baselines/{method}_r50_8xb256-100e_in1k.py").to_dict()
    models = [cfg.pop("model") for cfg in (baseline, reference)]
    for key in ("filename", "custom_hooks", "temperature", "find_unused_parameters"):
        baseline.pop(key, None), reference.pop(key, None)
    paramwise = [c["optim_wrapper"].pop("paramwise_cfg") for c in (baseline, reference)]
    assert baseline == reference
    assert paramwise[1]["custom_keys"].items() <= paramwise[0]["custom_keys"].items()
    ours, theirs = models
    assert ours["backbone"] == theirs["backbone"]
    for key in ("in_channels", "hid_channels", "out_channels"):
        assert ours["neck"][key] == theirs["neck"][key]
    if method != "swav":
        assert ours["neck"] == theirs["neck"]
        assert ours["base_momentum"] == theirs["base_momentum"]
        assert ours["head"]["predictor"] == theirs["head"]["predictor"]
    if method == "nnclr":
        assert ours["head"]["queue"] == theirs["head"]["queue"]


def test_every_small_method_is_documented_and_compared(tmp_path):
    compared = {Path(path).name for path in load_tool("compare.py").METHODS}
    small = {path.name for path in (CONFIGS / "baselines").glob("*_fashion-mnist.py")}
    assert small == compared - {"snclr_resnet-tiny_1xb128_fashion-mnist.py"}
    text = (REPOSITORY / "docs/methods.md").read_text()
    for name in small - {"swav_resnet-tiny_1xb128_fashion-mnist.py"}:
        assert f"`{name.split('_')[0]}`" in text, name
    snippet = re.search(r"^_base_.+?^train_dataloader.+?$", text, re.M | re.S).group()
    path = tmp_path / "weak.py"
    path.write_text(snippet.replace("../", f"{CONFIGS}/"))
    msf = load("baselines/msf_resnet-tiny_1xb128_fashion-mnist.py")
    pipeline = msf.train_dataloader.dataset.pipeline
    assert Config.fromfile(path).train_dataloader.dataset.pipeline == pipeline


@pytest.mark.parametrize("method", ["msf", "mnn", "ressl", "sce"])
@pytest.mark.parametrize(
    "recipe, size",
    [
        ("resnet-tiny_1xb128_fashion-mnist", 28),
        ("resnet-tiny_1xb128-gpu-aug-30e_fashion-mnist", 20),
        ("resnet-tiny_1xb128_cifar100", 20),
        ("r18_1xb256-200e_cifar100", 32),
    ],
)
def test_targets_are_weak(method, recipe, size):
    """The second view, the only key: crop and flip."""
    name = f"baselines/{method}_resnet-tiny_1xb128_fashion-mnist.py"
    cfg = load(name, f"RECIPE={recipe}")
    multi_view = cfg.data_preprocessor  # some augment whole batches
    if "transforms" not in multi_view:
        multi_view = cfg.train_dataloader.dataset.pipeline[1]
    strong, weak = multi_view.transforms
    assert [t.type for t in weak] == ["RandomResizedCrop", "RandomFlip"]
    assert weak == strong[:2] and len(strong) > 2
    assert strong[0].scale == size
    assert cfg.model.one_directional
    assert cfg.model.head.queue == load(f"snclr_{recipe}.py").model.head.queue


@pytest.mark.parametrize("method", ["mocov3", "swav", "nnclr", "nnbyol", "pnnclr"])
def test_small_methods_on_cifar100_differ_in_the_method_alone(method):
    name = f"baselines/{method}_resnet-tiny_1xb128_fashion-mnist.py"
    ours = load(name, "RECIPE=resnet-tiny_1xb128_cifar100").to_dict()
    reference = load("snclr_resnet-tiny_1xb128_cifar100.py").to_dict()
    assert ours.pop("work_dir") == f"work_dirs/{method}_resnet-tiny_1xb128_cifar100"
    assert ours["model"]["backbone"] == reference["model"]["backbone"]
    learning = [cfg.pop("optim_wrapper") for cfg in (ours, reference)]
    if method != "swav":
        assert learning[0] == learning[1]
    for key in ("filename", "custom_hooks", "model", "batch_size", "out_channels"):
        ours.pop(key, None), reference.pop(key, None)
    assert ours == reference
    for loader in (
        ours["train_dataloader"],
        ours["val_dataloader"],
        ours["test_cfg"]["bank_dataloader"],
        ours["val_cfg"]["bank_dataloader"],
    ):
        assert loader["dataset"]["type"] == "CIFAR100"
    for stage in ("val", "test"):
        assert ours[f"{stage}_dataloader"]["dataset"]["test_mode"]


def test_released_setting():
    """The authors' start.sh; see tests/golden for what its loss computes."""
    cfg = load("imagenet/snclr-released_vit-small-p16_32xb128-300e_in1k.py")
    head = MODELS.build(cfg.model.head)
    assert head.objective == "sum_of_logs"
    assert (head.temperature, head.loss_weight, head.num_neighbors) == (0.2, 0.4, 30)
    assert (head.queue.length, head.queue.dim) == (128000, 256)
    assert not head.queue.sync
    assert head.queue.init == "random"
    assert not list(head.attention.parameters())


def test_plain_folder_needs_a_folder_alone():
    cfg = load("snclr_r18_1xb128_image-folder.py")
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == "ImageFolder"
        assert loader.dataset.data_root == cfg.data_root == "data/images"
    assert "imagenet" not in str(cfg.to_dict())
