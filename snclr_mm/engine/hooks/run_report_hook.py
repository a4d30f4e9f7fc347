from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class RunReportHook(Hook):
    """Writes ``report.html`` to the work_dir when training ends.

    Give it ``priority="LOWEST"``, so that what other hooks write at the end is there.
    Of a run that was interrupted tools/visualization/report_run.py writes the same.
    """

    @master_only
    def after_train(self, runner) -> None:
        """Write the report; if that fails, the log says why, and the run is over."""
        from snclr_mm.visualization import write_run_report

        path = Path(runner.work_dir) / "report.html"
        try:
            write_run_report([runner.work_dir], path)
        except (ValueError, OSError) as error:
            runner.logger.warning(f"RunReportHook: no report was written: {error}")
