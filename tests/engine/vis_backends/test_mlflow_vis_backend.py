"""What the backend asks of MLflow; the hook's tests read it back from MLflow."""

import logging
from unittest.mock import Mock

import numpy as np
from mmengine.visualization import MLflowVisBackend as MMEnginesBackend
from mmpretrain.registry import VISBACKENDS

from snclr_mm.engine.vis_backends import MLflowVisBackend, mlflow_vis_backend


class MLflow:
    """Keeps the calls; a picture of no pixels fails."""

    class MlflowException(Exception):
        pass

    def __init__(self):
        self.logged = []

    def log_image(self, image, artifact_file=None, key=None, step=None):
        if image.size == 0:
            raise self.MlflowException("no pixels")
        self.logged.append((key, step, image))


def test_a_picture_for_each_step(monkeypatch, tmp_path):
    backend = VISBACKENDS.build(dict(type="MLflowVisBackend", save_dir=str(tmp_path)))
    assert type(backend) is MLflowVisBackend and isinstance(backend, MMEnginesBackend)
    backend._mlflow, backend._env_initialized = MLflow(), True
    image = np.zeros((2, 3, 3), np.uint8)
    backend.add_image("neighbors", image, step=4)
    backend.add_image("neighbors", image + 1, step=8)
    backend.add_image("Fötos/photo(1).jpg", image)
    keys = [(key, step) for key, step, _ in backend._mlflow.logged]
    assert keys == [("neighbors", 4), ("neighbors", 8), ("F_tos/photo_1_.jpg", 0)]
    assert [image.max() for *_, image in backend._mlflow.logged] == [0, 1, 0]

    said = Mock()
    monkeypatch.setattr(mlflow_vis_backend, "print_log", said)
    backend.add_image("neighbors", image[:0], step=9)
    text = "Could not log image neighbors to mlflow: no pixels"
    said.assert_called_once_with(text, "current", logging.WARNING)
    assert len(backend._mlflow.logged) == 3
