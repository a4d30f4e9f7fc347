from itertools import groupby

import torch
from mmpretrain.models import MoCoV3
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .cosine_ema import ForeachCosineEMA
from .neighbor_head import NeighborHead


@MODELS.register_module()
class SNCLR(MoCoV3):
    """SNCLR: soft neighbors are positive supporters (Ge et al., ICLR 2023).

    Two encoders and projectors, the momentum ones (MoCoV3's ``momentum_encoder``)
    following the online ones with a cosine schedule, and one predictor in the head.

    Args:
        backbone (dict): Config of the backbone, ResNet (feature maps) or ViT (class
            token).
        neck (dict): Config of the projector.
        head (dict): Config of a :class:`SoftNeighborHead`, or of another method's head
            that is a :class:`NeighborHead`.
        base_momentum (float): Start of 1 - momentum: 0.01 is the field's 0.99.
            Defaults to 0.01.
        channels_last (bool): Keep convolution weights, and with them the feature maps,
            in the channels-last memory format: same numbers up to rounding, often
            faster. Defaults to False.
        one_directional (bool): x_1 against y_2 alone: the second view is the target,
            for methods whose target has a weaker augmentation. Defaults to False.
        kwargs: ``pretrained``, ``data_preprocessor`` and ``init_cfg``, as in MoCoV3.

    Raises:
        ValueError: If ``backbone.out_indices`` is not one number, or the projector's
            width is not the queue's.
        TypeError: If the head does not look neighbors up.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        base_momentum: float = 0.01,
        channels_last: bool = False,
        one_directional: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(backbone, neck, head, base_momentum, **kwargs)
        self.one_directional = one_directional
        self.momentum_encoder = ForeachCosineEMA(
            nn.Sequential(self.backbone, self.neck), momentum=base_momentum
        )
        if not isinstance(self.head, NeighborHead):
            raise TypeError(
                f"model.head.type={type(self.head).__name__} looks no neighbors up: "
                "use a NeighborHead, such as SoftNeighborHead, or the algorithm MoCoV3."
            )
        maps = getattr(self.backbone, "out_indices", None)
        if isinstance(maps, list | tuple) and (len(maps) != 1 or maps[0] < 0):
            raise ValueError(
                f"model.backbone.out_indices={maps!r} must be the number of one stage "
                "or layer of the backbone, counted from 0."
            )
        width = neck.get("out_channels") if isinstance(neck, dict) else None
        if width not in (None, self.head.queue.dim):
            raise ValueError(
                f"model.neck.out_channels={width} must equal "
                f"model.head.queue.dim={self.head.queue.dim}."
            )
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def loss(
        self, inputs: list[Tensor], data_samples: list[DataSample], **kwargs
    ) -> dict[str, Tensor]:
        """Compute the loss, symmetrised over the views.

        The first two views are queries and keys. Any further views, the small crops of
        multi-crop, are queries only, each against both keys. The loss is twice the mean
        over all pairs of a query and another view's key: for two views the sum of both
        directions, and of the same scale for more. With ``one_directional`` x_2 is the
        only key and no query, and the loss is the mean over the pairs that are left.

        Args:
            inputs (list[Tensor]): x_1 and x_2, two views of the same images,
                [n, 3, H, W] each, and any number of local views, [n, 3, h, w].
            data_samples (list[DataSample]): Not used: labels play no part.

        Returns:
            dict[str, Tensor]: ``loss``, and for the log ``queue_fill`` and, once there
            are neighbors, ``positiveness_mean``, ``positiveness_max`` and
            ``neighbor_similarity``.

        Raises:
            ValueError: For fewer than two views.
        """
        if not isinstance(inputs, list | tuple) or len(inputs) < 2:
            given = len(inputs) if isinstance(inputs, list | tuple) else 1
            raise ValueError(
                f"SNCLR needs at least 2 views of each image, the pipeline gives "
                f"{given}: see MultiView's num_views in "
                "train_dataloader.dataset.pipeline."
            )
        x_1, x_2, *x_local = inputs

        # Online branch: y = projector(backbone(x)); the head adds z = predictor(y).
        y_1 = self.neck(self.backbone(x_1))[0]
        y_2 = None if self.one_directional else self.neck(self.backbone(x_2))[0]
        y_local = self._project_by_size(x_local)

        # Momentum branch, no gradient.
        with torch.no_grad():
            self.momentum_encoder.update_parameters(
                nn.Sequential(self.backbone, self.neck)
            )
            key_1 = None if self.one_directional else self.momentum_encoder(x_1)[0]
            key_2 = self.momentum_encoder(x_2)[0]

        # Symmetrised: x_1 against y_2, x_2 against y_1, local views against both.
        return self.head.loss_of_views([y_1, y_2, *y_local], [key_1, key_2])

    def _project_by_size(self, views: list[Tensor]) -> list[Tensor]:
        """Project each view; those of one size in a single pass."""
        projections = []
        for _, same_size in groupby(views, key=lambda view: view.shape):
            group = list(same_size)
            y = self.neck(self.backbone(torch.cat(group)))[0]
            projections += y.chunk(len(group))
        return projections
