import logging
import re

import numpy as np
from mmengine.logging import print_log
from mmengine.visualization import MLflowVisBackend as _MLflowVisBackend
from mmengine.visualization.vis_backend import force_init_env
from mmpretrain.registry import VISBACKENDS


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
        """Log the picture under its name and step; where that fails, the log says so.

        Args:
            name (str): What MLflow does not allow in a name becomes ``_``.
            image (np.ndarray): RGB, [H, W, 3], uint8.
            step (int): Defaults to 0.
        """
        key = re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)
        try:
            self._mlflow.log_image(image, key=key, step=step)
        except self._mlflow.MlflowException as error:
            print_log(
                f"Could not log image {name} to mlflow: {error}",
                "current",
                logging.WARNING,
            )
