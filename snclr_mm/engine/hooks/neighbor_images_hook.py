import io

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.visualization import MLflowVisBackend as _MLflowVisBackend
from mmengine.visualization.vis_backend import force_init_env
from mmpretrain.registry import HOOKS, VISBACKENDS
from mmpretrain.utils import get_ori_model
from PIL import Image


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
            training starts, if there are no images.
    """

    def __init__(self, interval: int = 1, num_images: int = 500) -> None:
        for name, value, least in (
            ("interval", interval, 1),
            ("num_images", num_images, 2),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"NeighborImagesHook.{name}={value} must be an int of at least "
                    f"{least} (config key custom_hooks)."
                )
        self.interval = interval
        self.num_images = num_images

    def before_train(self, runner) -> None:
        """Read the images."""
        from snclr_mm.visualization import ImageSample

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
        try:
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


@VISBACKENDS.register_module()
class MLflowVisBackend(_MLflowVisBackend):
    """MMEngine's, with a picture for each step.

    The original takes the name of a picture for that of a file, which MLflow refuses
    without a suffix, and the next picture of that name would overwrite it.
    """

    @force_init_env
    def add_image(
        self, name: str, image: np.ndarray, step: int = 0, **kwargs: object
    ) -> None:
        """Log the picture, RGB, [H, W, 3], uint8, under its name and step."""
        self._mlflow.log_image(image, key=name, step=step)
