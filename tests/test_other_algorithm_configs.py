"""Configs of configs/other_algorithms: what any algorithm with neighbors must do."""

import math
import re
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from helpers.configs import load as load_config
from helpers.tiny import CONFIG, REPOSITORY, build_runner, tiny_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from snclr_mm.evaluation import extract_features, pool_features, weighted_knn

FOLDER = REPOSITORY / "configs/other_algorithms"
WIDTH = 16  # of projections and queue
IMAGES = 8  # per batch
QUEUE = 40
K = 4

SNIPPETS = re.findall(
    r"^```python\n(.+?)^```", (REPOSITORY / "docs/mixing.md").read_text(), re.M | re.S
)
#: Name and algorithm.
CONFIGS = {
    "mocov3-soft-neighbors_r50_8xb512-100e_in1k": "MoCoV3",
    "byol-soft-neighbors_r50_16xb256-200e_in1k": "BYOL",
    "simsiam-soft-neighbors_r50_8xb32-100e_in1k": "SimSiam",
    "simclr-soft-neighbors_r50_16xb256-200e_in1k": "SimSiam",
    "nnclr_r50_16xb256-200e_in1k": "SimSiam",
    "snclr_timm-resnetblur50_8xb256-100e_in1k": "SNCLR",
    "snclr_convnext-tiny_8xb512-300e_in1k": "SNCLR",
    "snclr_swin-tiny_8xb512-300e_in1k": "SNCLR",
}
STOCK = [name for name, algorithm in CONFIGS.items() if algorithm != "SNCLR"]
KEY_BRANCH = {
    "MoCoV3": "momentum_encoder",
    "SNCLR": "momentum_encoder",
    "BYOL": "target_net",
    "SimSiam": "neck",
}
#: Overrides that make a backbone small, and the width of its features then.
BACKBONE = {
    "ResNet": (dict(depth=18, stem_channels=8, base_channels=8), 64),
    "TIMMBackbone": (
        dict(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=8),
        32,
    ),
    "ConvNeXt": (
        dict(arch=dict(_delete_=True, depths=[1, 1, 1, 1], channels=[8, 8, 8, 16])),
        16,
    ),
    "SwinTransformer": (
        dict(
            arch=dict(
                _delete_=True, embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 2, 2]
            ),
            window_size=2,
        ),
        64,
    ),
}


def load(name):
    if "timm" in name:
        pytest.importorskip("timm")
    return load_config(FOLDER / f"{name}.py")


def shrink_model(cfg, width=WIDTH, queue=QUEUE):
    """Few channels, K = 4 and a short queue."""
    backbone, in_channels = BACKBONE[cfg.model.backbone.type]
    options = {f"backbone.{key}": value for key, value in backbone.items()}
    options |= {
        "neck.in_channels": in_channels,
        "neck.hid_channels": width,
        "neck.out_channels": width,
        "head.queue.dim": width,
        "head.queue.length": queue,
    }
    if cfg.model.head.predictor is not None:
        for key in ("in_channels", "hid_channels", "out_channels"):
            options[f"head.predictor.{key}"] = width
    if "num_neighbors" in cfg.model.head:
        options["head.num_neighbors"] = K
    if "attention" in cfg.model.head:
        options["head.attention.in_channels"] = width
    options = {f"model.{key}": deepcopy(value) for key, value in options.items()}
    cfg.merge_from_dict(options)


def shrink(cfg, image_folder, work_dir):
    """A small model that trains for 3 iterations on crops of 64 pixels."""
    shrink_model(cfg)
    pipeline = cfg.train_dataloader.dataset.pipeline
    for view in pipeline[1].transforms:
        view[0].scale = 64
    cfg.merge_from_dict(
        {
            "work_dir": str(work_dir),
            "launcher": "none",
            "train_dataloader.batch_size": IMAGES,
            "train_dataloader.num_workers": 0,
            "train_dataloader.dataset": dict(
                _delete_=True,
                type="ImageFolder",
                data_root=str(image_folder),
                indices=3 * IMAGES,
                pipeline=pipeline,
            ),
            "train_cfg.max_epochs": 1,
            "default_hooks.logger.interval": 1,
            **{
                f"{stage}_{part}": None
                for stage in ("val", "test")
                for part in ("cfg", "dataloader", "evaluator")
            },
        }
    )


class Watch(Hook):
    """Notes what every iteration computes."""

    def __init__(self, key_branch):
        self.key_branch = key_branch
        self.losses, self.logs = [], []
        self.projections, self.without_gradient = [], set()

    def before_train(self, runner):
        def note_gradients(*_):
            for name, parameter in runner.model.named_parameters():
                if parameter.requires_grad and parameter.grad is None:
                    self.without_gradient.add(name)

        getattr(runner.model, self.key_branch).register_forward_hook(
            lambda module, inputs, output: self.projections.append(output[0].detach())
        )
        runner.optim_wrapper.optimizer.register_step_pre_hook(note_gradients)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs["loss"].item())
        self.logs.append(set(runner.model.head.log_vars))


def train(cfg):
    """Train three iterations and check what any algorithm with neighbors must do."""
    runner = build_runner(cfg)
    watch = Watch(KEY_BRANCH[cfg.model.type])
    runner.register_hook(watch)
    runner.train()
    model, queue = runner.model, runner.model.head.queue
    assert torch.tensor(watch.losses).isfinite().all()
    assert len(set(watch.losses)) == 3
    # Neighbors are used from the second step on, for the first the queue is empty.
    assert watch.logs[0] == set()
    assert "neighbor_similarity" in watch.logs[1] & watch.logs[2]
    # DistributedDataParallel needs no find_unused_parameters, warm-up or not.
    assert watch.without_gradient == set()
    # Each step enqueues the keys of view 2, then those of view 1.
    views = torch.stack(watch.projections).view(3, 2, IMAGES, WIDTH)
    keys = F.normalize(views.flip(1).reshape(-1, WIDTH), dim=1)
    rows = torch.arange(len(keys)) % QUEUE  # first in, first out: wraps around
    torch.testing.assert_close(queue.features[rows[-QUEUE:]], keys[-QUEUE:])
    assert len(keys) > QUEUE == len(queue)
    return model, runner.message_hub


def test_every_config_is_tested_and_documented():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(CONFIGS)
    documented = (REPOSITORY / "docs/mixing.md").read_text()
    assert all(f"| `{name}` |" in documented for name in CONFIGS)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_the_documentation(snippet):
    if snippet.startswith("_base_"):
        assert any(snippet in path.read_text() for path in FOLDER.glob("*.py"))
        return
    names = {}
    exec(snippet, names)
    queue = names["queue"] if "head" not in names else names["head"].queue
    assert len(queue) == 3 * 16 * (1 + ("head" in names))
    assert names["loss"].isfinite()
    assert queue.num_staged == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_trains(name, image_folder, tmp_path):
    cfg = load(name)
    shrink(cfg, image_folder, tmp_path)
    model, hub = train(cfg)
    assert type(model).__name__ == CONFIGS[name]
    parts = [model.backbone, model.neck] + [model] * (name in STOCK)
    assert all(type(part).__module__.startswith("mmpretrain.") for part in parts)
    if "nnclr_" not in name:
        assert hub.get_scalar("train/positiveness_mean").current() == pytest.approx(
            1 / K
        )
        assert hub.get_scalar("train/positiveness_max").current() > 1 / K
    # One vector per image for kNN and linear probes.
    features = pool_features(model.eval().extract_feat(torch.randn(2, 3, 64, 64)))
    assert features.shape == (2, BACKBONE[cfg.model.backbone.type][1])


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_norm_is_synchronised(name):
    cfg = load(name)
    shrink_model(cfg)
    norms = [m for m in MODELS.build(cfg.model).modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert all(isinstance(norm, SyncBatchNorm) for norm in norms)


@pytest.mark.parametrize("name", STOCK)
def test_optimizer_schedule_and_data_are_the_stock_ones(name, tmp_path):
    cfg = load(name)
    base = re.search(r'"mmpretrain::.+"', (FOLDER / f"{name}.py").read_text())
    (tmp_path / "stock.py").write_text(f"_base_ = {base.group()}")
    stock = Config.fromfile(tmp_path / "stock.py")
    for key in (
        *("optim_wrapper", "param_scheduler", "train_cfg", "auto_scale_lr"),
        *("train_dataloader", "data_preprocessor"),
    ):
        assert cfg.get(key) == stock.get(key), key
    assert cfg.model.backbone == stock.model.backbone
    hooks = [
        {k: v for k, v in hook.items() if k != "_scope_"} for hook in cfg.custom_hooks
    ]
    stock_hooks = [
        {k: v for k, v in hook.items() if k != "_scope_"}
        for hook in stock.get("custom_hooks", [])
    ]
    assert hooks == [*stock_hooks, dict(type="NeighborQueueHook")]


@pytest.mark.parametrize("name", STOCK[:2])
def test_nearest_neighbors_in_stock_algorithms_with_momentum(
    name, image_folder, tmp_path
):
    cfg = load(name)
    cfg.model.head = dict(
        type="NearestNeighborHead",
        predictor=cfg.model.head.predictor,
        queue=cfg.model.head.queue,
    )
    shrink(cfg, image_folder, tmp_path)
    train(cfg)


def train_on_digits(name, digits_root, work_dir, epochs, channels, stages):
    """Train a config's head and algorithm on handwritten digits.

    Returns:
        tuple: The Runner, and a Watch of its iterations.
    """
    ours = load(name)
    shrink_model(ours, width=4 * channels, queue=512)
    cfg = tiny_config(
        digits_root,
        work_dir,
        train_dataloader__batch_size=64,
        train_dataloader__dataset__indices=None,
        train_cfg__max_epochs=epochs,
        model__backbone__stem_channels=channels,
        model__backbone__base_channels=channels,
        model__backbone__num_stages=stages,
        model__backbone__strides=(2,) * stages,
        model__backbone__dilations=(1,) * stages,
        model__backbone__out_indices=(stages - 1,),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=10)
        ],
    )
    # Crops alone: a mirrored digit is another one. At half the size, which is faster.
    crop = dict(type="RandomResizedCrop", scale=14, crop_ratio_range=(0.5, 1.0))
    cfg.train_dataloader.dataset.pipeline[1].transforms = [[crop]]
    ours.model.backbone = cfg.model.backbone
    ours.model.neck.in_channels = channels * 2 ** (stages - 1)
    ours.model.head.temperature = 0.2
    cfg.model = ours.model
    runner = build_runner(cfg)
    watch = Watch("neck")
    runner.register_hook(watch)
    runner.train()
    return runner, watch


def test_what_does_not_decay():
    """By name and type, so that it holds for FSDP's flat parameters, too."""
    cfg = load("snclr_convnext-tiny_8xb512-300e_in1k")
    shrink_model(cfg)
    model = MODELS.build(cfg.model)
    keys = ("optimizer", "paramwise_cfg")
    options = {key: cfg.optim_wrapper[key] for key in keys}
    wrapper = build_optim_wrapper(model, dict(options, type="OptimWrapper"))
    decays = {p: g["weight_decay"] for g in wrapper.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert (decays[parameter] > 0) == (parameter.ndim > 1), name


WITHOUT_MOMENTUM = [name for name in CONFIGS if name.startswith(("simsiam", "simclr"))]


@pytest.mark.parametrize("name", WITHOUT_MOMENTUM)
def test_learns_to_tell_images_apart(name, digits_root, tmp_path):
    _, watch = train_on_digits(name, digits_root, tmp_path, 2, 8, 2)
    assert "positiveness_mean" in watch.logs[-1]
    # Were all features equal, its own key and K neighbors would hold 1 + Σ w_i = 2 of
    # the N(K + 1) equal terms of D.
    chance = math.log(64 * (K + 1) / 2)
    assert sum(watch.losses[-10:]) / 10 < chance - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_MOMENTUM)
def test_features_beat_random_ones(name, digits_root, tmp_path):
    accuracies = []
    for epochs in (0, 10):
        runner, _ = train_on_digits(name, digits_root, tmp_path, epochs, 16, 3)
        cfg = Config.fromfile(CONFIG)
        parts = []
        for loader in (cfg.val_cfg.bank_dataloader, cfg.val_dataloader):
            loader.dataset.data_root = str(digits_root)
            parts.append(
                extract_features(runner.model, runner.build_dataloader(loader))
            )
        (bank, bank_labels), (queries, labels) = parts
        predicted = weighted_knn(queries, bank, bank_labels)
        accuracies.append((predicted == labels).float().mean().item())
    assert accuracies[1] > accuracies[0] + 0.02
