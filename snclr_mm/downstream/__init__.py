"""Parts for MMDetection, imported by the configs that need them; needs mmdet."""

from .res_layer_extra_norm import ResLayerExtraNorm

__all__ = ["ResLayerExtraNorm"]
