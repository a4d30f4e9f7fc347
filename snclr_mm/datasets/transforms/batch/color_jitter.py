import torch
from mmpretrain.datasets.transforms import ColorJitter
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor

from snclr_mm.hardware import to_device

from .batch_transform import BatchTransform

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
GRAY_BGR = (7471 / 65536, 38470 / 65536, 19595 / 65536)  # Pillow's, in fixed point


@BATCH_AUGMENTS.register_module(name="ColorJitter")
class BatchColorJitter(BatchTransform):
    """MMPretrain's ColorJitter with its backend Pillow: factors and order per image.

    Also the rounding is Pillow's: down after each operation, and hue and saturation as
    whole numbers.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(ColorJitter(**kwargs))
        if self.options.backend != "pillow":
            self._refuse(
                f"ColorJitter(backend={self.options.backend!r})",
                "leave backend out, or give 'pillow'",
            )
        ranges = {name: getattr(self.options, name) for name in OPERATIONS}
        self.ranges = {name: r for name, r in ranges.items() if r is not None}

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.jitter(images, *self.draw(len(images), generator))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What to do with each image.

        Returns:
            tuple[Tensor, Tensor]: ``order`` [n, k], the k operations with a range as
            indices into OPERATIONS, the first one first, and ``factors`` [n, k], those
            of these operations.
        """
        k = len(self.ranges)
        which = torch.rand(n, k, generator=generator).argsort(dim=1)
        low, high = torch.tensor([*self.ranges.values()]).view(k, 2).unbind(1)
        factors = low + (high - low) * torch.rand(n, k, generator=generator)
        operations = torch.tensor([OPERATIONS.index(name) for name in self.ranges])
        return operations.long()[which], factors.gather(1, which)

    @staticmethod
    def jitter(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
        """Apply given operations.

        Args:
            images (Tensor): [n, 3, H, W], uint8, BGR.
            order (Tensor): [n, k], int64, on the CPU; see :meth:`draw`.
            factors (Tensor): [n, k], on the CPU.

        Returns:
            Tensor: [n, 3, H, W], uint8.
        """
        device, result = images.device, images.float()
        for operation, factor in zip(order.unbind(1), factors.unbind(1), strict=True):
            hue = operation == OPERATIONS.index("hue")
            blend = torch.stack(
                [
                    factor.masked_fill(hue, 1.0),
                    operation == OPERATIONS.index("contrast"),
                    operation == OPERATIONS.index("saturation"),
                ]
            )
            result = _blend(result, *to_device(blend, device)[..., None, None, None])
            index = hue.nonzero().flatten()
            if len(index):
                shift = to_device((factor[index] * 255).trunc(), device)
                index = to_device(index, device)
                shifted = _shift_hue(result.index_select(0, index), shift)
                result.index_copy_(0, index, shifted)
        return result.to(torch.uint8)


def _blend(images: Tensor, factor: Tensor, contrast: Tensor, saturation: Tensor):
    """Away from black, or from the mean gray, or from each pixel's gray."""
    blue, green, red = images.unbind(1)
    gray = blue * GRAY_BGR[0] + green * GRAY_BGR[1] + red * GRAY_BGR[2]
    gray = gray.add_(0.5).floor_()[:, None]
    mean = (gray.mean((2, 3), keepdim=True) + 0.5).floor()
    origin = mean * contrast + gray * saturation
    # Not fused to one multiply-add: it rounds otherwise, and then floor does.
    return (images - origin).mul_(factor).add_(origin).clamp_(0, 255).floor_()


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Add to the hue, where 256 is a full turn, as Pillow converts to HSV and back."""
    blue, green, red = images.unbind(1)
    value, lowest = images.amax(1), images.amin(1)
    span = value - lowest
    divisor = span.clamp(min=1)
    hue = torch.where(
        red == value,
        (green - blue) / divisor,
        torch.where(
            green == value,
            2 + (blue - red) / divisor,
            4 + (red - green) / divisor,
        ),
    )
    hue = (hue / 6 + 1).remainder_(1).mul_(255).floor_()
    saturation = (span / value.clamp(min=1)).mul_(255).floor_()
    sixths = (hue + shift[:, None, None]).remainder_(256).mul_(6 / 255)
    # Blue, green and red are 1, 3 and 5 sixths of a turn apart.
    phase = torch.arange(1, 6, 2, device=images.device).view(3, 1, 1)
    phase = (sixths[:, None] + phase).remainder_(6)
    away = torch.minimum(phase, 4 - phase).clamp_(0, 1)
    chroma = (value * saturation / 255)[:, None]
    return (value[:, None] - chroma * away).add_(0.5).floor_()
