"""Schedules that do not fit the length of a training."""

from mmengine.config import Config


def fit_schedule(cfg: Config) -> list[str]:
    """Let a training be shorter than the warm-up, and tell where a schedule is longer.

    A scheduler without ``end`` ends with the training, and MMEngine refuses one that
    would end before it begins. It then gets an ``end``, and never begins.

    Args:
        cfg (Config): Complete; changed in place.

    Returns:
        list[str]: What does not end, or does not begin, for the log.

    Raises:
        ValueError: If a scheduler counts epochs in a training that counts iterations,
            which for MMEngine is one epoch.
    """
    notes, loop = [], cfg.get("train_cfg") or {}
    schedulers = cfg.get("param_scheduler") or []
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, list) else []):
        unit = "epochs" if scheduler.get("by_epoch", True) else "iters"
        length, key = loop.get(f"max_{unit}"), f"param_scheduler.{i}"
        if length is None:
            ends = "end" in scheduler and scheduler.get("convert_to_iter_based")
            if unit == "epochs" and "max_iters" in loop and not ends:
                raise ValueError(
                    f"{key} ({scheduler.type}) counts epochs, but train_cfg iterations "
                    f"(max_iters={loop.max_iters}): set {key}.by_epoch=False, its "
                    "begin in iterations, and leave convert_to_iter_based out."
                )
            continue
        begin, end = scheduler.get("begin", 0), scheduler.get("end", length)
        late = [step for step in scheduler.get("milestones", []) if step >= length]
        if late:
            notes.append(
                f"{key}.milestones {late} are never reached: training ends at "
                f"train_cfg.max_{unit}={length}."
            )
        if begin >= length:
            scheduler.setdefault("end", begin + 1)
            notes.append(
                f"{scheduler.type} never begins: {key}.begin={begin}, and training "
                f"ends at train_cfg.max_{unit}={length}."
            )
        elif end > length:
            notes.append(
                f"{scheduler.type} does not end: {key}.end={end}, and training ends at "
                f"train_cfg.max_{unit}={length}; set both alike"
                + f", and {key}.T_max={length - begin}" * ("T_max" in scheduler)
                + "."
            )
    saving = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if "max_iters" in loop and saving and saving.get("by_epoch", True):
        notes.append(
            "The only checkpoint is that of the end: default_hooks.checkpoint counts "
            "epochs, but train_cfg iterations; set default_hooks.checkpoint.by_epoch="
            "False, and its interval in iterations."
        )
    return notes
