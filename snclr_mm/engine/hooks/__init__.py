from . import diagnostics
from .diagnostics import *  # noqa: F403
from .neighbor_queue_hook import NeighborQueueHook
from .run_report_hook import RunReportHook

__all__ = [*diagnostics.__all__, "NeighborQueueHook", "RunReportHook"]
