from contextlib import ExitStack

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, all_reduce_params
from mmengine.logging import HistoryBuffer
from mmengine.optim import OPTIMIZERS
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from snclr_mm.engine.hooks.utils import check_at_least

from .diagnostic_hook import DiagnosticHook, FirstViewFeatures, batch_labels

STATE = "online_linear_probe"


@HOOKS.register_module()
class OnlineLinearProbeHook(DiagnosticHook):
    """Trains a linear classifier beside the model, on detached backbone features.

    Each measured batch's first views are first classified, then learned from, so the
    accuracy is that of a classifier that has not seen these very views. Logs the
    running accuracy in percent, ``diagnostics/online_linear_top1``.

    Classifier, optimizer and accuracy are in the checkpoint beside the model, not in
    its ``state_dict``, and are resumed. With several ranks all of them hold the same
    classifier. Images without a label (or with several) are left out; without any, the
    hook warns once and logs nothing.

    Args:
        num_classes (int, optional): Defaults to the training dataset's number of
            classes.
        optimizer (dict, optional): Config of a torch optimizer. Defaults to
            ``dict(type='SGD', lr=0.1, momentum=0.9)``.
        window (int): Measured batches that the running accuracy spans. Defaults to 50.
        interval (int): Iterations between two measured (and learned) batches. Defaults
            to 1.

    Raises:
        ValueError: If a number is below 1, the number of classes is not known, a label
            exceeds it, or the checkpoint holds a classifier of another size.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        optimizer: dict | None = None,
        window: int = 50,
        interval: int = 1,
    ) -> None:
        super().__init__(interval)
        check_at_least(self, "window", window)
        if num_classes is not None:
            check_at_least(self, "num_classes", num_classes)
        self.num_classes = num_classes
        self.optimizer_cfg = optimizer or dict(type="SGD", lr=0.1, momentum=0.9)
        #: The classifier, once there was a labeled batch.
        self.probe: nn.Linear | None = None
        self._accuracy = HistoryBuffer(max_length=window)
        self._resumed: dict | None = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add classifier, optimizer and running accuracy."""
        if self.probe is not None:
            correct, total = self._accuracy.data
            checkpoint[STATE] = dict(
                probe=self.probe.state_dict(),
                optimizer=self.optimizer.state_dict(),
                accuracy=dict(correct=correct.tolist(), total=total.tolist()),
            )
        elif self._resumed is not None:  # no labeled batch since then
            checkpoint[STATE] = self._resumed

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember the saved state on resume, to load it when the sizes are known."""
        if runner._resume:
            self._resumed = checkpoint.get(STATE)

    def _attach(self, model: nn.Module, stack: ExitStack) -> None:
        self._view = FirstViewFeatures(model, stack)

    def _measure(self, runner, data_batch: dict) -> dict[str, float]:
        features = self._view.features["backbone"]
        labels = batch_labels(data_batch).to(features.device)
        usable = (labels >= 0) & features.isfinite().all(dim=1)
        features, labels = features[usable], labels[usable]
        total = features.new_tensor(len(labels))
        all_reduce(total)
        if total == 0:
            self._warn_once(
                runner,
                "the batch has no labels (or no finite features): nothing is learned "
                "or logged. Use a labeled training dataset.",
            )
            return {}
        if self.probe is None:
            self._build(runner, features)
        most = labels.max() if len(labels) else labels.new_zeros(())
        all_reduce(most, "max")  # all ranks raise, so that none waits for another
        if most >= self.probe.out_features:
            raise ValueError(
                f"The batch has label {int(most)}, but "
                f"OnlineLinearProbeHook.num_classes={self.probe.out_features} "
                "(config key custom_hooks)."
            )
        correct = self._learn(features, labels, total)
        self._accuracy.update(correct.item(), total.item())
        return {"online_linear_top1": 100 * self._accuracy.mean()}

    @torch.enable_grad()
    def _learn(self, features: Tensor, labels: Tensor, total: Tensor) -> Tensor:
        """Take one step on all ranks' rows; return how many were right before it."""
        logits = self.probe(features)
        correct = (logits.argmax(dim=1) == labels).sum().float()
        self.optimizer.zero_grad()
        # Divided by the global number: the ranks' gradients add up to the mean's.
        (F.cross_entropy(logits, labels, reduction="sum") / total).backward()
        all_reduce_params([*(p.grad for p in self.probe.parameters()), correct])
        self.optimizer.step()
        return correct

    def _build(self, runner, features: Tensor) -> None:
        # Zeros, not random: training must not depend on whether we draw numbers.
        self.probe = torch.nn.utils.skip_init(
            nn.Linear,
            features.shape[1],
            self._find_num_classes(runner),
            device=features.device,
        )
        for parameter in self.probe.parameters():
            nn.init.zeros_(parameter)
        self.optimizer = OPTIMIZERS.build(
            self.optimizer_cfg, default_args=dict(params=self.probe.parameters())
        )
        if self._resumed is not None:
            self._load(self._resumed)
            self._resumed = None

    def _find_num_classes(self, runner) -> int:
        if self.num_classes is not None:
            return self.num_classes
        metainfo = getattr(runner.train_dataloader.dataset, "metainfo", {})
        classes = metainfo.get("classes")
        if not classes:
            raise ValueError(
                "The training dataset does not say how many classes it has: set "
                "OnlineLinearProbeHook.num_classes (config key custom_hooks)."
            )
        return len(classes)

    def _load(self, state: dict) -> None:
        saved, own = state["probe"]["weight"].shape, self.probe.weight.shape
        if saved != own:
            raise ValueError(
                f"The checkpoint's online linear probe is {list(saved)} (classes, "
                f"features), this run's is {list(own)}: set "
                "OnlineLinearProbeHook.num_classes (config key custom_hooks) to the "
                f"former, or drop {STATE!r} from the checkpoint to start it anew."
            )
        self.probe.load_state_dict(state["probe"])
        self.optimizer.load_state_dict(state["optimizer"])
        accuracy = state["accuracy"]
        for correct, total in zip(accuracy["correct"], accuracy["total"], strict=True):
            self._accuracy.update(correct, total)
