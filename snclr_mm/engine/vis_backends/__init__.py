from .mlflow_vis_backend import MLflowVisBackend

__all__ = ["MLflowVisBackend"]
