from . import diagnostics
from .checkpoint_check_hook import CheckpointCheckHook
from .diagnostics import *  # noqa: F403
from .exact_resume_hook import ExactResumeHook
from .neighbor_images_hook import NeighborImagesHook
from .neighbor_queue_hook import NeighborQueueHook
from .robust_checkpoint_hook import RobustCheckpointHook
from .run_report_hook import RunReportHook
from .step_guard_hook import StepGuardHook

__all__ = [
    *diagnostics.__all__,
    "CheckpointCheckHook",
    "ExactResumeHook",
    "NeighborImagesHook",
    "NeighborQueueHook",
    "RobustCheckpointHook",
    "RunReportHook",
    "StepGuardHook",
]
