"""Trains the tiny config with diagnostics, beside a record of what they observe."""

import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmpretrain.registry import HOOKS, OPTIM_WRAPPERS
from mmpretrain.utils import get_ori_model

from helpers.tiny import FIXED_VIEWS, build_runner, norm_free, tiny_config

DIAGNOSTICS = (
    "OnlineLinearProbeHook",
    "OnlineKNNHook",
    "NeighborPurityHook",
    "NeighborAgeHook",
    "PositivenessEntropyHook",
    "CollapseHook",
)


@HOOKS.register_module(force=True)
class Recorder(Hook):
    """Records each iteration's labels, module outputs, searches and staged keys.

    Args:
        unlabeled (Sequence[int]): Images of each second batch whose labels are taken
            away.
        nan_at (int, optional): Iteration whose images are not numbers.
    """

    priority = "VERY_LOW"

    def __init__(self, unlabeled=(), nan_at=None):
        self.unlabeled = unlabeled
        self.nan_at = nan_at
        self.steps = []
        #: Every key that was enqueued on this rank, oldest first, and its label.
        self.keys, self.key_labels = [], []
        self._staged, self._count = [], 0

    def before_train(self, runner):
        model = get_ori_model(runner.model)
        for name in ("backbone", "neck"):
            module = getattr(model, name)
            module.register_forward_hook(
                lambda _, args, out, name=name: self.steps[-1][name].append(
                    last_of(out).detach().clone()
                )
            )
        head = model.head
        if hasattr(head, "attention"):
            head.attention.register_forward_hook(
                lambda _, args, out: self.steps[-1]["weights"].append(out.detach())
            )
        if hasattr(head, "queue"):
            self.watch(head.queue)

    def watch(self, queue):
        search, stage = queue.search, queue.stage

        def recorded_search(keys, k):
            found = search(keys, k)
            # What is in the found rows, not where they are.
            self.steps[-1]["found"].append(queue.features[found[1]].clone())
            self.steps[-1]["enqueued"] = len(self.keys)
            return found

        def recorded_stage(keys, gathered=False, step=0):
            stage(keys, gathered, step)
            labels = self.steps[-1]["labels"]
            ranks, rank = (get_world_size(), get_rank()) if gathered else (1, 0)
            keys = F.normalize(keys.detach(), dim=1)
            for view in keys.unflatten(0, (-1, ranks, len(labels)))[:, rank]:
                self._staged += zip(view, labels, strict=True)

        queue.search, queue.stage = recorded_search, recorded_stage

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for i in self.unlabeled if runner.iter % 2 else ():
            del data_batch["data_samples"][i].gt_label
        if runner.iter == self.nan_at:
            data_batch["inputs"][0] = data_batch["inputs"][0] * float("nan")
        labels = [
            s.gt_label.item() if "gt_label" in s else -1
            for s in data_batch["data_samples"]
        ]
        step = {name: [] for name in ("backbone", "neck", "weights", "found")}
        self.steps.append({"labels": labels, **step})

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        queue = getattr(get_ori_model(runner.model).head, "queue", None)
        if queue is None or queue.num_staged > 0:
            return
        if queue.count > self._count:
            for key, label in self._staged:
                self.keys.append(key)
                self.key_labels.append(label)
        self._count = queue.count.item()
        self._staged = []


@OPTIM_WRAPPERS.register_module(force=True)
class SkippingOptimWrapper(OptimWrapper):
    """Skips each third step, as a loss scaler does after an overflow."""

    def step(self, **kwargs):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps % 3:
            super().step(**kwargs)


def last_of(output):
    return output[-1] if isinstance(output, list | tuple) else output


def train(
    data_root,
    work_dir,
    hooks=(),
    recorder=None,
    algorithm="SNCLR",
    before=None,
    **overrides,
):
    """Train the tiny config.

    Args:
        hooks: Config of each diagnostic, or its name.
        recorder: Settings of the Recorder, False for none.
        algorithm: SNCLR, or one of MMPretrain's.
        before: Called with the Runner before it trains.
        overrides: As for ``tiny_config``.
    """
    cfg = tiny_config(data_root, work_dir, **overrides)
    set_algorithm(cfg, algorithm)
    cfg.custom_hooks = [
        dict(type="NeighborQueueHook"),
        *(dict(type=hook) if isinstance(hook, str) else dict(hook) for hook in hooks),
    ]
    if recorder is not False:
        cfg.custom_hooks.append(dict(type="Recorder", **(recorder or {})))
    runner = build_runner(cfg)
    if before is not None:
        before(runner)
    runner.train()
    return runner


def find(runner, name):
    (hook,) = [hook for hook in runner.hooks if type(hook).__name__ == name]
    return hook


def scalar(runner, name):
    """All values that were logged under a diagnostic's name."""
    return runner.message_hub.get_scalar(f"train/diagnostics/{name}").data[0].tolist()


def set_algorithm(cfg, name):
    """Turn the tiny config into a stock algorithm of MMPretrain."""
    if name == "SNCLR":
        return
    projector, predictor = cfg.model.neck, cfg.model.head.predictor
    cfg.model = dict(type=name, backbone=cfg.model.backbone, neck=projector)
    cross_entropy = dict(type="CrossEntropyLoss")
    latent = dict(
        type="LatentPredictHead",
        loss=dict(type="CosineSimilarityLoss"),
        predictor=predictor,
    )
    if name == "SwAV":
        cfg.model.neck = dict(
            type="SwAVNeck",
            in_channels=8,
            hid_channels=16,
            out_channels=8,
            norm_cfg=projector.norm_cfg,
        )
    cfg.model.head = {
        "MoCoV3": dict(type="MoCoV3Head", loss=cross_entropy, predictor=predictor),
        "BYOL": latent,
        "SimSiam": latent,
        "SimCLR": dict(type="ContrastiveHead", loss=cross_entropy),
        "SwAV": dict(
            type="SwAVHead",
            loss=dict(type="SwAVLoss", feat_dim=8, num_crops=[2], num_prototypes=10),
        ),
    }[name]


def comparable(world_size):
    """Overrides for training that does not depend on the number of ranks.

    12 images per step, no random views, no batch statistics.
    """
    return {
        "launcher": "pytorch" if world_size > 1 else "none",
        "train_dataloader__batch_size": 12 // world_size,
        "train_dataloader__dataset__indices": 48,
        "train_dataloader__sampler__shuffle": False,
        "train_dataloader__dataset__pipeline": FIXED_VIEWS,
        "optim_wrapper__optimizer": dict(_delete_=True, type="SGD", lr=0.1),
        **norm_free(),
    }
