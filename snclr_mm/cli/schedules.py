"""Schedules that do not fit the length of a training."""

from mmengine.config import Config


def fit_schedule(cfg: Config) -> list[str]:
    """Let a training be shorter than the warm-up, and tell where a schedule is longer.

    A scheduler without ``end`` ends with the training, and MMEngine refuses one that
    would end before it begins. It then gets an ``end``, and never begins.

    Args:
        cfg (Config): Complete; changed in place.

    Returns:
        list[str]: Which schedulers do not end, or do not begin, for the log.
    """
    notes, loop = [], cfg.get("train_cfg") or {}
    schedulers = cfg.get("param_scheduler") or []
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, list) else []):
        unit = "epochs" if scheduler.get("by_epoch", True) else "iters"
        length = loop.get(f"max_{unit}")
        if length is None:
            continue
        begin, end = scheduler.get("begin", 0), scheduler.get("end", length)
        key = f"param_scheduler.{i}"
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
    return notes
