import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .architecture import State
from .format import Backbone, tensors_of

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


def translate(state: State, pairs: Pairs, prefix: str = "") -> State:
    """The same tensors under other names, with a prefix before each."""
    return {prefix + rename(name, pairs): value for name, value in state.items()}


def as_arguments(settings: dict[str, Any]) -> str:
    """``a=1, b='x'``, as one would write a call."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def pick(
    tensors: dict[str, Tensor],
    pairs: Pairs = (),
    prefix: str = "",
    without: Sequence[str] = (),
) -> Backbone:
    """Take a backbone out of a checkpoint's tensors.

    Args:
        tensors (dict[str, Tensor]): Of the whole model.
        pairs (Sequence[tuple[str, str]]): Their names -> MMPretrain's.
        prefix (str): Of the backbone's names, removed before translating.
        without (Sequence[str]): First parts of names that are no backbone's, as
            ``fc``.
    """
    renamed, dropped = {}, []
    for name in tensors:
        bare = name.removeprefix(prefix)
        if name.startswith(prefix) and bare.partition(".")[0] not in without:
            renamed[rename(bare, pairs)] = name
        else:
            dropped.append(name)
    state = {new: tensors[old] for new, old in renamed.items()}
    return Backbone(state, renamed, dropped, prefix)


def pick_classifier(
    checkpoint: dict, pairs: Pairs, head: Sequence[str], num_heads: dict[int, int]
) -> Backbone:
    """Take the backbone out of a classifier's state dict, DDP's or not.

    Args:
        checkpoint (dict): As the library saves it.
        pairs (Sequence[tuple[str, str]]): MMPretrain's names -> the library's.
        head (Sequence[str]): First parts of the classifier's names.
        num_heads (dict[int, int]): A ViT's heads by width, where the width tells.
    """
    tensors = tensors_of(checkpoint)
    is_ddp = all(name.startswith("module.") for name in tensors)
    backbone = pick(tensors, invert(pairs), "module." if is_ddp else "", head)
    token = backbone.state.get("cls_token")
    heads = None if token is None else num_heads.get(token.shape[-1])
    return backbone._replace(num_heads=heads)
