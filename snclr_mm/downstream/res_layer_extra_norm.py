from mmcv.cnn import build_norm_layer
from mmdet.models.roi_heads.shared_heads import ResLayer
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ResLayerExtraNorm(ResLayer):
    """ResNet's last stage as a C4 detector's shared head, with a norm after it.

    Detectors of self-supervised backbones train with batch norm; the extra one keeps
    the scale of res5's output, as in MoCo's transfer recipe (He et al., CVPR 2020).

    Args:
        kwargs: Of MMDetection's ResLayer.
    """

    #: What a pretraining checkpoint cannot have.
    new_parts = ("norm",)

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        stage = getattr(self, f"layer{self.stage + 1}")
        channels = stage[-1].norm3.num_features
        self.add_module("norm", build_norm_layer(self.norm_cfg, channels)[1])

    def forward(self, x: Tensor) -> Tensor:
        """[n, C_in, H, W] to [n, C_out, H', W']."""
        return self.norm(super().forward(x))
