from collections.abc import Sequence

import torch
from mmpretrain.models import ClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn


@MODELS.register_module()
class MultiLinearHead(ClsHead):
    """Linear probes of a frozen backbone, one per learning rate, in a single run.

    The learning rate of a linear probe has to be searched. As in DINOv2 (Oquab et al.,
    2023) all candidates see the same features, and the loss is the sum of theirs, so
    each trains as it would alone; they start from the same weights. That holds for
    optimizers that treat each parameter by itself, without ``clip_grad``.

    ``MultiLinearOptimWrapperConstructor`` gives each classifier its learning rate,
    ``MultiLinearAccuracy`` reports the best.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Width of the features.
        lr_factors (Sequence[float]): One classifier each; its learning rate is this
            times ``optim_wrapper.optimizer.lr``.
        init_cfg (dict, optional): Initialization config. Defaults to
            ``dict(type='Normal', layer='Linear', std=0.01)``.
        kwargs: ``loss``, ``topk`` and ``cal_acc``, as in ClsHead.

    Raises:
        ValueError: If a factor is not positive or is given twice, or there is none.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        lr_factors: Sequence[float],
        init_cfg: dict | None = dict(type="Normal", layer="Linear", std=0.01),  # noqa: B006
        **kwargs,
    ) -> None:
        super().__init__(init_cfg=init_cfg, **kwargs)
        self.lr_factors = tuple(lr_factors)
        if (
            not self.lr_factors
            or min(self.lr_factors) <= 0
            or len(set(self.lr_factors)) < len(self.lr_factors)
        ):
            raise ValueError(
                f"model.head.lr_factors={self.lr_factors}: needs at least one factor, "
                "all positive and different."
            )
        self.classifiers = nn.ModuleList(
            nn.Linear(in_channels, num_classes) for _ in self.lr_factors
        )

    def init_weights(self) -> None:
        """Initialize the first classifier, and start the others from its weights."""
        super().init_weights()
        for classifier in self.classifiers[1:]:
            classifier.load_state_dict(self.classifiers[0].state_dict())

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Score the classes.

        Args:
            feats (tuple[Tensor]): The last is taken, [n, in_channels].

        Returns:
            Tensor: [n, number of classifiers, num_classes].
        """
        features = self.pre_logits(feats)
        return torch.stack([fc(features) for fc in self.classifiers], dim=1)

    def _get_loss(
        self, cls_score: Tensor, data_samples: list[DataSample], **kwargs
    ) -> dict[str, Tensor]:
        """``loss_x{factor}`` of each classifier; MMEngine adds them up."""
        losses = {}
        for factor, score in zip(self.lr_factors, cls_score.unbind(1), strict=True):
            for name, value in super()._get_loss(score, data_samples, **kwargs).items():
                losses[f"{name}_x{factor:g}"] = value
        return losses

    def _get_predictions(
        self, cls_score: Tensor, data_samples: list[DataSample] | None
    ) -> list[DataSample]:
        """Set ``pred_labels``, each classifier's class, and ``lr_factors``."""
        if data_samples is None:
            data_samples = [DataSample() for _ in cls_score]
        best = cls_score.argmax(dim=2).cpu()  # the metric reads them one by one
        for sample, labels in zip(data_samples, best, strict=True):
            sample.set_field(labels, "pred_labels")
            sample.set_field(self.lr_factors, "lr_factors", field_type="metainfo")
        return data_samples
