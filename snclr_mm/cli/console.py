"""What the screen shows of a run; the log file has everything."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from mmengine.dist import all_gather_object, get_world_size
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint

#: Beginnings, or parts behind a parameter's name, of messages for the log file alone.
NOISE = re.compile(
    r"\s*-+\s+System environment|Config:|Hooks will be executed|Distributed training is"
    r"|Checkpoints will be saved|Exp name|paramwise_options|\"FileClient\" will"
    r"|\"HardDiskBackend\" is|\S+ is skipped since its requires_grad|\S+ is duplicate"
)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Keep config, environment, hooks and the like off the screen, not the log file.

    For the loggers that are made inside; their screen stays like this.
    """
    init = MMLogger.__init__

    def init_quietly(logger, *args, **kwargs):
        init(logger, *args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(lambda record: not NOISE.match(record.getMessage()))

    with patch.object(MMLogger, "__init__", init_quietly):
        yield


@contextmanager
def explain_sizes(loader: str) -> Iterator[None]:
    """Say what to do where the images of a batch of ``loader`` differ in size."""
    try:
        yield
    except RuntimeError as error:
        if "stack expects each tensor to be equal size" not in str(error):
            raise
        raise ValueError(
            f"The images in a batch of {loader} have different sizes and cannot be "
            "stacked. A transform that gives them one size is missing in "
            f"{loader}.dataset.pipeline: behind LoadImage put dict(type='Resize', "
            "scale=(96, 96)). Augmentation of whole batches (AugmentDataPreprocessor) "
            "needs it too; other configs crop each image by itself."
        ) from error


def announce(runner: Runner, notes: list[str]) -> None:
    """Say what is about to be trained, on what, and where it goes.

    Args:
        runner (Runner): About to train; its training loop is built here.
        notes (list[str]): What was changed in the config, to be said too.

    Raises:
        ValueError: If there are fewer images than a batch takes, or if the processes do
            not find the same images.
    """
    loop, cfg, world = runner.train_loop, runner.cfg, get_world_size()
    loader, dataset = loop.dataloader, loop.dataloader.dataset
    source = getattr(dataset, "img_prefix", "") or type(dataset).__name__
    check = getattr(dataset, "check", None)
    size = cfg.train_dataloader.get("batch_size", 1)
    skipped = list(check.skipped.items()) if check else []
    if not len(loader):
        raise ValueError(
            f"{len(dataset)} images on {world} process(es) are fewer than a batch of "
            f"train_dataloader.batch_size={size}, and drop_last=True drops what is "
            "left over, so no step would be made. Lower train_dataloader.batch_size."
        )
    if len({repr(found) for found in all_gather_object(check)}) > 1:
        raise ValueError(f"The processes do not find the same images in {source!r}.")
    length = f"{loop.max_iters} steps"
    if isinstance(loop, EpochBasedTrainLoop):
        length += f" in {loop.max_epochs} epochs"
    batch, scale = size * world, cfg.get("auto_scale_lr") or {}
    optimizer = cfg.optim_wrapper.get("optimizer") or {}
    factor = batch / scale.base_batch_size if scale.get("enable") else 1
    validates = cfg.get("val_dataloader") is not None
    backbone = cfg.model.get("backbone") or {}
    if cfg.get("resume") and not cfg.get("load_from"):
        latest = Path(find_latest_checkpoint(runner.work_dir) or "none").stem
        if latest == "none":
            notes = [*notes, "--resume found no checkpoint: training starts from zero"]
        elif latest in (f"epoch_{loop.max_epochs}", f"iter_{loop.max_iters}"):
            notes = [*notes, f"nothing: {latest}.pth is the end of this run"]
    rows = [
        ("data", f"{source}: {check or f'{len(dataset)} images'}"),
        *[("skipped", f"{path}: {why}") for path, why in skipped[:5]],
        *[("", f"and {len(skipped) - 5} more")] * (len(skipped) > 5),
        (
            "model",
            f"{cfg.model.type}, {backbone.get('type')} {backbone.get('depth', '')}",
        ),
        ("batch", f"{batch} images on {world} process(es), {length}"),
        (
            "optimizer",
            f"{optimizer.get('type')}, learning rate {optimizer.get('lr', 0):g}"
            + f" x {factor:.3g} for this batch" * (factor != 1),
        ),
        ("validation", cfg.val_cfg.get("type", "ValLoop") if validates else "none"),
        ("results", Path(runner.work_dir).absolute()),
        ("log file", Path(runner.log_dir).absolute()),
        *[("changed", note) for note in notes],
    ]
    lines = [f"  {name:11}{text}" for name, text in rows]
    runner.logger.info("\n".join(["Training:", *lines]))
