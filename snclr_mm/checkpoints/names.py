import re
from collections.abc import Iterable, Sequence

from torch import Tensor

from .format import Backbone

Pairs = Sequence[tuple[str, str]]


def rename(name: str, pairs: Pairs) -> str:
    """Translate a tensor's name.

    Args:
        name (str): As ``layers.3.ln1.weight``.
        pairs (Sequence[tuple[str, str]]): (from, to), whole names or their beginnings
            up to a dot, with ``{}`` for an index: ``("layers.{}.ln1",
            "blocks.{}.norm1")``. The first that fits counts.

    Returns:
        str: The new name, or the old one if no pair fits.
    """
    for old, new in pairs:
        pattern = re.escape(old).replace(r"\{\}", r"(\d+)")
        if found := re.fullmatch(rf"{pattern}(?P<rest>\..+)?", name):
            index = found.groups()[: old.count("{}")]
            return new.format(*index) + (found["rest"] or "")
    return name


def invert(pairs: Pairs) -> Pairs:
    """The translation back."""
    return [(new, old) for old, new in pairs]


def ddp_prefix(tensors: dict[str, Tensor]) -> str:
    """``module.`` if DistributedDataParallel put it before each name, else nothing."""
    return "module." if all(name.startswith("module.") for name in tensors) else ""


def pick(
    tensors: dict[str, Tensor],
    pairs: Pairs = (),
    prefix: str = "",
    without: Iterable[str] = (),
) -> Backbone:
    """Take a backbone out of a checkpoint's tensors.

    Args:
        tensors (dict[str, Tensor]): Of the whole model.
        pairs (Sequence[tuple[str, str]]): Their names -> MMPretrain's.
        prefix (str): Of the backbone's names, removed before translating.
        without (Iterable[str]): First parts of names that are no backbone's, as
            ``fc``.
    """
    without = set(without)
    renamed = {
        rename(name.removeprefix(prefix), pairs): name
        for name in tensors
        if name.startswith(prefix)
        and name.removeprefix(prefix).partition(".")[0] not in without
    }
    kept = set(renamed.values())
    return Backbone(
        state={new: tensors[old] for new, old in renamed.items()},
        renamed=renamed,
        dropped=[name for name in tensors if name not in kept],
    )
