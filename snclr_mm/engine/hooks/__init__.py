from . import diagnostics
from .checkpoint_check_hook import CheckpointCheckHook
from .diagnostics import *  # noqa: F403
from .neighbor_queue_hook import NeighborQueueHook

__all__ = [*diagnostics.__all__, "CheckpointCheckHook", "NeighborQueueHook"]
