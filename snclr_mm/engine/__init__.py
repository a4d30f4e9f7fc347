from . import hooks, optimizers, parallel, runners
from .hooks import *  # noqa: F403
from .optimizers import *  # noqa: F403
from .parallel import *  # noqa: F403
from .runners import *  # noqa: F403

__all__ = [
    *hooks.__all__,
    *optimizers.__all__,
    *parallel.__all__,
    *runners.__all__,
]
