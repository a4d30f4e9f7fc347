import io
from contextlib import nullcontext

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model
from PIL import Image
from torch.distributed.fsdp import FullyShardedDataParallel

from .utils import check_at_least


@HOOKS.register_module()
class NeighborImagesHook(Hook):
    """Draws the neighbors of the same eight images after each ``interval`` epochs.

    The picture goes to each backend of the visualizer as ``neighbors``. It is that of
    tools/visualization/browse_neighbors.py: neighbors are found among some images of
    val_dataloader, else of test_dataloader or train_dataloader. Training is the same
    with and without the hook.

    Args:
        interval (int): Epochs between two pictures. Defaults to 1.
        num_images (int): Images, evenly spread over the dataset, which are kept in
            memory. Defaults to 500.

    Raises:
        ValueError: If ``interval`` is below 1 or ``num_images`` below 2, or, when
            training starts, if there are no images or the loop has no epochs.
    """

    def __init__(self, interval: int = 1, num_images: int = 500) -> None:
        check_at_least(self, "interval", interval)
        check_at_least(self, "num_images", num_images, 2)
        self.interval = interval
        self.num_images = num_images

    def before_train(self, runner) -> None:
        """Read the images."""
        from snclr_mm.visualization import ImageSample

        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                "NeighborImagesHook (config key custom_hooks) draws after epochs, and "
                f"{type(runner.train_loop).__name__} (config key train_cfg.type) has "
                "none: remove the hook, or train by epochs."
            )
        self.images = ImageSample(runner.cfg, self.num_images)

    def after_train_epoch(self, runner) -> None:
        """Draw; where features are not finite, the log says so, and training goes on.

        All ranks take part, as FSDP needs them.
        """
        if not self.every_n_epochs(runner, self.interval):
            return
        from snclr_mm.visualization import find_neighbors

        model = get_ori_model(runner.model)
        model.eval()  # the loop sets train() in each epoch
        whole = nullcontext()
        if isinstance(runner.model, FullyShardedDataParallel):
            # The parts of the model are called without it, so their parameters that
            # are no unit of their own, such as the attention's, would be in shards.
            whole = FullyShardedDataParallel.summon_full_params(
                runner.model, recurse=False, writeback=False
            )
        try:
            with whole:
                found = find_neighbors(model, self.images.batches)
        except ValueError as error:
            runner.logger.warning(f"NeighborImagesHook: no picture was drawn: {error}")
            return
        if not is_main_process():
            return
        buffer = io.BytesIO()
        self.images.draw(found, buffer)
        picture = np.asarray(Image.open(buffer).convert("RGB"))
        runner.visualizer.add_image("neighbors", picture, step=runner.iter)
