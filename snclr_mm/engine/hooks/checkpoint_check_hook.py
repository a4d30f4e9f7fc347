import re
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from snclr_mm.checkpoint_safety import CheckpointError

from .neighbor_queue_hook import RANK_QUEUES


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Refuses checkpoints that do not fit, where MMEngine only warns.

    The tools add it to every run. To resume, all of the checkpoint must fit the model,
    and the run's state must be there. To test, the whole model must be in the
    checkpoint. To start training from it (``load_from``), the model's backbone must be;
    other parts, as a head for other classes, may be missing or of another shape. A
    model without a backbone needs one whole part.

    Raises:
        CheckpointError: Naming the file, and the first few of what does not fit.
    """

    priority = "VERY_HIGH"  # before the hooks that take parts out of the checkpoint

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check a checkpoint before it reaches the model."""
        source = runner._load_from or f"The latest checkpoint in {runner.work_dir}"
        try:
            if runner._resume:
                _check_state(runner, checkpoint)
            _keep_best(checkpoint, Path(runner.work_dir))
            # MMEngine reads files without this key too, but not with a strategy.
            checkpoint.setdefault("state_dict", dict(checkpoint))
            _check_weights(runner, checkpoint["state_dict"])
        except ValueError as error:
            raise CheckpointError(f"{source}: {error}") from None


def find_misfits(module: nn.Module, state: dict) -> dict[str, list[str]]:
    """What differs between a module and weights for it, which are loaded on the way.

    Returns:
        dict[str, list[str]]: Names of tensors by problem, with the shapes of those that
        do not fit. Modules may resize what they load, as a ViT its positions.
    """
    misfits = []
    try:
        missing, unused = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        own = module.state_dict()
        names = re.findall(r"size mismatch for (\S+): ", str(error))
        if not names:
            raise ValueError(str(error)) from None
        misfits = [
            f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
            for name in names
        ]
        missing = [name for name in own if name not in state]
        unused = [name for name in state if name not in own]
    return {
        "not in the checkpoint": [
            name for name in missing if not name.endswith("num_batches_tracked")
        ],
        "of another shape": misfits,
        "not in the model": list(unused),
    }


def summarize_misfits(problems: dict[str, list[str]]) -> str:
    """The first few of each problem, as text; empty if there is none."""
    return "; ".join(
        f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for problem, names in problems.items()
        if names
    )


def _check_weights(runner, state: dict) -> None:
    model = runner.model
    if not isinstance(model, FullyShardedDataParallel):
        model = get_ori_model(model)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    problems = find_misfits(model, state)
    if not runner._resume:
        problems.pop("not in the model")
        if isinstance(runner._train_loop, BaseLoop):  # else it is a test
            problems = _of_needed_part(model, problems)
    text = summarize_misfits(problems)
    if text:
        raise ValueError(
            f"of {len(state)} tensors in the checkpoint and {len(model.state_dict())} "
            f"in the model, {text}. Is it of another config?"
        )


def _of_needed_part(model: nn.Module, problems: dict) -> dict:
    """Only what concerns the backbone, or, without one, the part that fits best."""
    candidates = [
        {
            problem: [name for name in names if name.startswith(f"{part}.")]
            for problem, names in problems.items()
        }
        for part in (
            ["backbone"] if hasattr(model, "backbone") else dict(model.named_children())
        )
    ]
    return min(candidates, key=lambda parts: sum(map(len, parts.values())))


def _check_state(runner, checkpoint: dict) -> None:
    """Is the state of a run there, and possible?"""
    meta, hub = checkpoint.get("meta", {}), checkpoint.get("message_hub", {})
    for name in ("epoch", "iter", "seed"):
        value = meta.get(name, None if name == "seed" else "missing")
        if value is not None and (type(value) is not int or not 0 <= value < 2**32):
            raise ValueError(f"meta.{name} is {value!r}, and should count from 0.")
    parts = {"optimizer": dict, "message_hub": dict}
    if runner.param_schedulers is not None:
        parts["param_schedulers"] = (list, dict)
    for name, kind in parts.items():
        if not checkpoint.get(name) or not isinstance(checkpoint[name], kind):
            raise ValueError(
                f"it has no {name}: from weights alone training starts, by load_from, "
                "but is not resumed."
            )
    schedulers = checkpoint.get("param_schedulers", [])
    if isinstance(schedulers, list) and not all(type(s) is dict for s in schedulers):
        raise ValueError("its param_schedulers are no states of schedulers.")
    groups = getattr(runner.optim_wrapper, "param_groups", None)
    if isinstance(groups, list):  # else there are several optimizers
        saved = checkpoint["optimizer"].get("param_groups")
        if not isinstance(saved, list) or len(saved) != len(groups):
            raise ValueError(f"its optimizer has not {len(groups)} param_groups.")
    for name in ("log_scalars", "runtime_info", "resumed_keys"):
        if not isinstance(hub.get(name), dict):
            raise ValueError(f"message_hub.{name} is missing, or no dict.")
    state = checkpoint.get("state_dict", {})
    for name, value in checkpoint.get("ema_state_dict", {}).items():
        own = state.get(name.removeprefix("module."))
        if name != "steps" and getattr(own, "shape", None) != value.shape:
            raise ValueError(f"ema_state_dict: {name} does not fit state_dict.")
    for name, part in checkpoint.get(RANK_QUEUES, {}).items():
        sizes = {len(value) for value in part.values() if isinstance(value, Tensor)}
        if set(part) != {"features", "count"} or len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"{RANK_QUEUES}.{name} does not hold queues of ranks.")


def _keep_best(checkpoint: dict, work_dir: Path) -> None:
    """Give the best checkpoint back that is in the work directory, by its name alone.

    MMEngine deletes it when a better one comes.
    """
    best = checkpoint.get("meta", {}).pop("best_checkpoints", {})
    for key, path in best.items():
        own = work_dir / Path(str(path)).name
        if own.is_file() and own.name.startswith("best_"):
            checkpoint["message_hub"]["runtime_info"][key] = str(own)
