from . import fileio, hooks, optimizers, parallel, runners, vis_backends
from .fileio import *  # noqa: F403
from .hooks import *  # noqa: F403
from .optimizers import *  # noqa: F403
from .parallel import *  # noqa: F403
from .runners import *  # noqa: F403
from .vis_backends import *  # noqa: F403

__all__ = [
    *fileio.__all__,
    *hooks.__all__,
    *optimizers.__all__,
    *parallel.__all__,
    *runners.__all__,
    *vis_backends.__all__,
]
