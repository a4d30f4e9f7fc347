from . import diagnostics
from .diagnostics import *  # noqa: F403
from .neighbor_queue_hook import NeighborQueueHook
from .step_guard_hook import StepGuardHook

__all__ = [*diagnostics.__all__, "NeighborQueueHook", "StepGuardHook"]
