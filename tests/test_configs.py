"""Every config of the repository: it loads, trains 2 iterations and evaluates."""

import re
from pathlib import Path

import mmpretrain
import pytest
import torch
from helpers.shrink import shrink
from helpers.tiny import REPOSITORY, build_runner
from mmengine.config import Config
from mmengine.hooks import Hook
from mmpretrain.registry import MODELS

from snclr_mm.evaluation import pool_features

CONFIGS = REPOSITORY / "configs"
MOCOV3 = Path(mmpretrain.__path__[0]) / ".mim/configs/mocov3"
# Those of other libraries are in test_downstream_configs.py; retrieval has a test of
# its own.
ELSEWHERE = {"_base_", "mmdetection", "mmsegmentation", "retrieval"}
PATHS = sorted(p for p in CONFIGS.rglob("*.py") if not ELSEWHERE & {*p.parts})


def name(path):
    return str(path.relative_to(CONFIGS))


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


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_trains_and_evaluates(path, image_folder, tmp_path, monkeypatch):
    if "timm" in path.name:
        pytest.importorskip("timm")
    cfg = shrink(Config.fromfile(path), image_folder, tmp_path)
    # What a Runner logs and dumps; to format it takes longer than to train.
    monkeypatch.setattr(Config, "pretty_text", "")
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
    for path in PATHS:
        model = Config.fromfile(path).model
        backbone = {**model.backbone, "init_cfg": None}
        key = str(backbone)
        if key not in widths:
            if backbone["type"] == "TIMMBackbone":
                pytest.importorskip("timm")
            network = MODELS.build(backbone)
            network.eval()  # some return nothing
            with torch.no_grad():
                images = torch.zeros(1, 3, 224, 224)
                widths[key] = pool_features(network(images)).shape[1]
        neck, head = model.get("neck"), model.head
        first = neck if neck and "in_channels" in neck else head
        assert first.in_channels == widths[key], path
        parts = [head.get(name) for name in ("predictor", "queue", "attention")]
        keys = ("in_channels", "out_channels", "dim")
        inner = {part[key] for part in parts if part for key in keys if key in part}
        assert not inner or inner == {neck.out_channels}, path


# {gpus}xb{batch}[-accum{steps}][-...]-{epochs}e
NUMBERS = re.compile(r"_(\d+)xb(\d+)(?:-accum(\d+))?(?:-[a-z]\w+)*-(\d+)e_")
RECIPES = [
    path
    for path in PATHS
    if path.parent.name in ("imagenet", "small_images") and "-half" not in path.name
]


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_recipe_does_what_its_name_says(path):
    cfg = Config.fromfile(path)
    numbers = NUMBERS.search(path.name).groups(default="1")
    gpus, batch, steps, epochs = map(int, numbers)
    wrapper = cfg.optim_wrapper
    assert cfg.train_dataloader.batch_size == batch
    assert wrapper.get("accumulative_counts", 1) == steps
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    warm_up, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == cosine.end == epochs
    assert warm_up.end == cosine.begin == epochs - cosine.T_max
    lr = wrapper.optimizer.lr / (gpus * batch * steps / 256)
    assert lr == pytest.approx(_base_lr(path.name, epochs))
    # The average moves as far in one step of the optimizer, however many parts it has.
    moved = 1 - (1 - cfg.model.base_momentum) ** steps
    assert moved == pytest.approx(0.004 if epochs == 800 else 0.01, rel=0.01)
    if path.parent.name == "imagenet":
        bf16 = "-bf16-" in path.name
        assert wrapper.type == "AmpOptimWrapper"
        assert wrapper.get("dtype") == ("bfloat16" if bf16 else None)
        assert wrapper.loss_scale == (1.0 if bf16 else "dynamic")
        multi_view = cfg.train_dataloader.dataset.pipeline[1]
        sizes = [view[0].scale for view in multi_view.transforms]
        if "-mcrop-" in path.name:
            assert (multi_view.num_views, sizes) == ([1, 1, 6], [224, 224, 96])
        else:
            assert (multi_view.num_views, sizes) == ([1, 1], [224, 224])


def _base_lr(name, epochs):
    """Per 256 images: MoCo v3's, the authors' start.sh, and lightly's for CIFAR-10."""
    if "released" in name:
        return 1.5e-5
    if "vit" in name:
        return 1.5e-4
    if "r18" in name:
        return 0.12
    return 0.6 if epochs == 100 else 0.3


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
    cfg = Config.fromfile(CONFIGS / f"imagenet/{ours}.py")
    stock = Config.fromfile(MOCOV3 / f"mocov3_{stock}.py")
    assert cfg.param_scheduler == stock.param_scheduler
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


@pytest.mark.parametrize(
    "config, base",
    [
        ("imagenet/snclr_r50_8xb256-gpu-aug-100e_in1k", "snclr_r50_8xb256"),
        *(
            (f"{name}-gpu-aug{rest}", f"{name}{rest}")
            for name, rest in (
                ("small_images/snclr_r18_1xb256", "-200e_tiny-imagenet"),
                ("snclr_resnet-tiny_1xb128", "_fashion-mnist"),
            )
        ),
    ],
)
def test_gpu_aug_moves_the_same_transforms(config, base):
    cfg, base = (Config.fromfile(CONFIGS / f"{c}.py").to_dict() for c in (config, base))
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


@pytest.mark.parametrize("method", ["mocov3", "swav", "nnclr"])
def test_baselines_differ_in_the_method_alone(method):
    """Data, schedule, evaluation and backbone are SNCLR's; SwAV has no predictor."""
    reference = Config.fromfile(CONFIGS / "snclr_r50_8xb256.py").to_dict()
    baseline = CONFIGS / f"baselines/{method}_r50_8xb256-100e_in1k.py"
    baseline = Config.fromfile(baseline).to_dict()
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


def test_released_setting():
    """The authors' start.sh; see tests/golden for what its loss computes."""
    cfg = Config.fromfile(
        CONFIGS / "imagenet/snclr-released_vit-small-p16_32xb128-300e_in1k.py"
    )
    head = MODELS.build(cfg.model.head)
    assert head.objective == "sum_of_logs"
    assert (head.temperature, head.loss_weight, head.num_neighbors) == (0.2, 0.4, 30)
    assert (head.queue.length, head.queue.dim) == (128000, 256)
    assert not head.queue.sync
    assert head.queue.init == "random"
    assert not list(head.attention.parameters())


def test_plain_folder_needs_a_folder_alone():
    cfg = Config.fromfile(CONFIGS / "snclr_r50_8xb256_image-folder.py")
    assert cfg.train_dataloader.dataset.type == "ImageFolder"
    assert cfg.train_dataloader.dataset.data_root == cfg.data_root == "data/images"
    text = str({k: v for k, v in cfg.to_dict().items() if k != "train_dataloader"})
    assert "imagenet" not in text
