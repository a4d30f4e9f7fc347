from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snclr_mm.evaluation.features import network_inputs, pool_features

from .neighbors import has_soft_neighbors


def similarity_maps(model: nn.Module, queries: dict, neighbors: dict) -> np.ndarray:
    """Where neighbors are similar to their queries: HiResCAM of their similarity.

    HiResCAM (Draelos and Carin, 2020) multiplies the backbone's last feature map by the
    gradient of a number, and sums over the channels. The number is the dot product with
    the query's key, of length 1, where keys are those of :func:`find_neighbors`:
    projections, or else pooled features. Computed by the package ``grad-cam``.

    Args:
        model (nn.Module): A self-supervised algorithm, in eval mode.
        queries (dict): A batch of n single views.
        neighbors (dict): A batch of n single views, one for each query.

    Returns:
        np.ndarray: Of the neighbors, [n, H, W], float32, from 0 to 1, each with its own
        scale.

    Raises:
        ValueError: If the backbone gives no feature maps, as a ViT's class token.
        ModuleNotFoundError: Without the package, naming the extra that brings it.
    """
    try:
        from pytorch_grad_cam import HiResCAM
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}. Saliency needs the package grad-cam: pip install -e "
            "'.[saliency]'."
        ) from None

    encoder = _Encoder(model)
    views = [network_inputs(model, batch) for batch in (queries, neighbors)]
    keys = F.normalize(encoder(views[0]).detach(), dim=1)
    # Not the cosine: it does not change with the length of a key, so what speaks for
    # the similarity and what speaks against it would always add up to zero.
    targets = [partial(torch.dot, key) for key in keys]
    with HiResCAM(encoder, [encoder.maps]) as cam:
        return cam(views[1], targets)


class _Encoder(nn.Module):
    """The keys of :func:`find_neighbors`, of any length, with their feature maps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if has_soft_neighbors(model):
            self.backbone, self.neck = model.momentum_encoder.module
        else:
            self.backbone, self.neck = model.backbone, None
        self.maps = nn.Identity()  # its output is what the package looks at

    @torch.enable_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            output = self.backbone(inputs)
        maps = output[-1] if isinstance(output, list | tuple) else output
        if maps.dim() != 4:
            raise ValueError(
                f"{type(self.backbone).__name__} (config key model.backbone) gives "
                f"{list(maps.shape)} and no feature maps, in which to look for what is "
                "similar."
            )
        maps = self.maps(maps.requires_grad_())
        return self.neck((maps,))[0] if self.neck else pool_features(maps)
