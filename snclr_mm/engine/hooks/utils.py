"""What several hooks need."""

from collections.abc import Callable

from mmengine.runner import BaseLoop
from torch import nn


def clean_up_after_errors(runner, clean_up: Callable) -> None:
    """Call ``clean_up(runner)`` if the training loop ends by an exception.

    MMEngine calls no hook then.
    """
    loop = runner._train_loop
    if not isinstance(loop, BaseLoop):
        return  # the Runner does not train
    run = loop.run

    def guarded():
        try:
            return run()
        except BaseException:
            clean_up(runner)
            raise

    loop.run = guarded


def check_at_least(hook, name: str, value: int, least: int = 1) -> None:
    """Raise ValueError unless a setting of a hook is an int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{type(hook).__name__}.{name}={value} must be an int of at least {least} "
            "(config key custom_hooks)."
        )


def find_modules(model: nn.Module, kind: type) -> dict:
    """All modules of a kind in the model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, kind)}
