import torch
from mmpretrain.datasets.transforms import GaussianBlur
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from snclr_mm.hardware import to_device

from .batch_transform import BatchTransform, resample


@BATCH_AUGMENTS.register_module(name="GaussianBlur")
class BatchGaussianBlur(BatchTransform):
    """MMPretrain's GaussianBlur, which is Pillow's, each image with its own radius.

    Pillow blurs three times with a box whose length is not a whole number, along each
    axis (Gwosdek et al., Theoretical Foundations of Gaussian Convolution by Extended
    Box Filtering, SSVM 2011). That is linear, so here it is one matrix per axis.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(GaussianBlur(**kwargs))

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.blur(images, self.draw_radii(len(images), generator))

    def draw_radii(self, n: int, generator: torch.Generator) -> Tensor:
        """Standard deviations in pixels, [n], as BaseAugTransform draws them."""
        options = self.options
        if options.radius is not None:
            return torch.full((n,), float(options.radius))
        level = torch.full((n,), float(options.magnitude_level))
        if options.magnitude_std == "inf":
            level *= torch.rand(n, generator=generator)
        elif options.magnitude_std > 0:
            level += torch.randn(n, generator=generator) * options.magnitude_std
            level.clamp_(0, options.total_level)
        low, high = options.magnitude_range
        return level / options.total_level * (high - low) + low

    @staticmethod
    def blur(images: Tensor, radii: Tensor) -> Tensor:
        """Blur each image.

        Args:
            images (Tensor): [n, 3, H, W], uint8.
            radii (Tensor): [n], on the CPU: standard deviations in pixels.

        Returns:
            Tensor: [n, 3, H, W], uint8.
        """
        taps = to_device(_extended_box(radii), images.device)
        height, width = images.shape[2:]
        columns = _blur_matrix(taps, width)
        rows = columns if height == width else _blur_matrix(taps, height)
        return resample(images, rows, columns)


def _extended_box(radii: Tensor, passes: int = 3) -> Tensor:
    """The box, [n, taps], whose repetition has the variance radii ** 2."""
    variance = radii.double() ** 2 / passes
    whole = ((12 * variance + 1).sqrt() / 2 - 0.5).floor()
    ends = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    ends /= 6 * (variance - (whole + 1) ** 2)
    reach = int(whole.max()) + 1
    distance = torch.arange(-reach, reach + 1).abs()
    box = (distance <= whole[:, None]).double()
    box += (distance == whole[:, None] + 1) * ends[:, None]
    return (box / box.sum(1, keepdim=True)).float()


def _blur_matrix(taps: Tensor, size: int) -> Tensor:
    """Three passes of each box over a line whose ends are repeated, [n, size, size]."""
    n, length = taps.shape
    pixel = torch.arange(size, device=taps.device)
    offset = torch.arange(length, device=taps.device)[:, None] - length // 2
    source = (pixel + offset).clamp(0, size - 1)
    shifts = (source[..., None] == pixel).to(taps.dtype)
    box = (taps @ shifts.view(length, -1)).view(n, size, size)
    return box @ box @ box
