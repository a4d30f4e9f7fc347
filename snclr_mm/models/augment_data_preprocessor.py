import torch
from mmengine.dist import get_rank, get_world_size
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor

from snclr_mm.datasets.transforms.batch import build_transforms


@MODELS.register_module()
class AugmentDataPreprocessor(SelfSupDataPreprocessor):
    """SelfSupDataPreprocessor that also augments, on the device, in training.

    It takes the part of a MultiView pipeline that costs most, as the same configs: what
    is left to the workers is to load and crop. Each image and view draws for itself,
    from torch's default generator on the CPU and the rank, so nothing has to be kept in
    a checkpoint. Transforms work on uint8 and are not part of the autocast region.

    Args:
        transforms (list[list[dict]]): For each kind of view the transforms, as
            MultiView's ``transforms``: RandomResizedCrop, RandomFlip, RandomApply,
            ColorJitter, RandomGrayscale, GaussianBlur and Solarize with the options of
            MMCV and MMPretrain.
        num_views (list[int], optional): How many views of each kind, as MultiView's.
            Defaults to one each.
        kwargs: ``mean``, ``std``, ``to_rgb``, ``non_blocking`` and the others of
            SelfSupDataPreprocessor.

    Raises:
        ValueError: If there is no such transform for batches, or if ``num_views`` has
            another length than ``transforms``.
    """

    def __init__(
        self,
        transforms: list[list[dict]],
        num_views: list[int] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        num_views = [1] * len(transforms) if num_views is None else num_views
        if len(num_views) != len(transforms):
            raise ValueError(
                f"data_preprocessor.num_views={num_views} must have one number for "
                f"each of the {len(transforms)} lists in data_preprocessor.transforms."
            )
        self.pipelines = []
        for i, (view, n) in enumerate(zip(transforms, num_views, strict=True)):
            pipeline = build_transforms(view, f"data_preprocessor.transforms[{i}]")
            self.pipelines += [pipeline] * n

    def forward(self, data: dict, training: bool = False) -> dict:
        """Augment in training, then convert the channels and normalize.

        In training ``data_samples`` stay as they are, on the CPU: no loss reads them,
        and to copy those of a large batch takes milliseconds.

        Args:
            data (dict): ``inputs``: the views, a list of [n, 3, H, W], uint8, or one
                such tensor, the images, of which all views are made. ``data_samples``.
            training (bool): False leaves the augmentation out. Defaults to False.

        Returns:
            dict: ``inputs``, list of [n, 3, h, w], float32 (one tensor if not in
            training and given one), and ``data_samples``.

        Raises:
            ValueError: If the pipeline gives another number of views, or no uint8.
        """
        if not training:
            return super().forward(data, training)
        views = self.augment(data["inputs"])
        if self._channel_conversion:
            views = [view.flip(1) for view in views]  # an index list would wait
        views = [view.float() for view in views]
        if self._enable_normalize:
            views = [(view - self.mean) / self.std for view in views]
        return {"inputs": views, "data_samples": data.get("data_samples")}

    @torch.no_grad()
    def augment(self, inputs: list[Tensor] | Tensor) -> list[Tensor]:
        """Augmented views on this module's device, uint8; see :meth:`forward`."""
        views = self.cast_data(inputs)
        if isinstance(views, Tensor):
            views = [views] * len(self.pipelines)
        self._check(views)
        generator = self._generator()
        augmented = []
        with torch.autocast(views[0].device.type, enabled=False):
            for view, pipeline in zip(views, self.pipelines, strict=True):
                for transform in pipeline:
                    view = transform(view, generator)
                augmented.append(view)
        return augmented

    def _check(self, views: list[Tensor]) -> None:
        if len(views) != len(self.pipelines):
            raise ValueError(
                f"The pipeline gives {len(views)} views of each image, "
                f"data_preprocessor.transforms and num_views describe "
                f"{len(self.pipelines)}: make them equal to MultiView's num_views in "
                "train_dataloader.dataset.pipeline."
            )
        for view in views:
            if view.dtype != torch.uint8 or view.dim() != 4 or view.shape[1] != 3:
                raise ValueError(
                    f"Batches must be uint8 [n, 3, H, W] to be augmented, not "
                    f"{view.dtype} {list(view.shape)}: leave to_float32 and Normalize "
                    "out of train_dataloader.dataset.pipeline."
                )

    @staticmethod
    def _generator() -> torch.Generator:
        # MMEngine gives all ranks one seed, so the rank tells their images apart.
        seed = int(torch.randint(2**31, ()))
        return torch.Generator().manual_seed(seed * get_world_size() + get_rank())
