import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .architecture import Architecture, State
from .format import Backbone, Format, tensors_of

Pairs = Sequence[tuple[str, str]]


def rename(name: str, pairs: Pairs) -> str:
    """Translate a name by the first pair that fits it or its beginning up to a dot.

    A ``{}`` stands for an index: ``("layers.{}.ln1", "blocks.{}.norm1")``.
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


def translate(state: State, pairs: Pairs) -> State:
    """The same tensors under other names."""
    return {rename(name, pairs): value for name, value in state.items()}


def as_arguments(settings: dict[str, Any]) -> str:
    """``a=1, b='x'``, as one would write a call."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def pick(
    tensors: dict[str, Tensor],
    pairs: Pairs = (),
    prefix: str = "",
    without: Sequence[str] = (),
) -> Backbone:
    """Take out the names with this prefix whose next part is not in ``without``."""
    renamed, dropped = {}, []
    for name in tensors:
        bare = name.removeprefix(prefix)
        if name.startswith(prefix) and bare.partition(".")[0] not in without:
            renamed[rename(bare, pairs)] = name
        else:
            dropped.append(name)
    state = {new: tensors[old] for new, old in renamed.items()}
    return Backbone(state, renamed, dropped, prefix)


def classifier_format(
    pairs: Pairs, head: Sequence[str], num_heads: dict[int, int], *model: Callable
) -> Format:
    """The format of a library that saves a classifier's state dict, DDP's or not.

    Args:
        pairs (Sequence[tuple[str, str]]): MMPretrain's names -> the library's.
        head (Sequence[str]): First parts of the classifier's names.
        num_heads (dict[int, int]): A ViT's heads by width, where the width tells.
        *model (Callable): The format's ``build``, ``features`` and ``usage``.
    """

    def read(checkpoint: dict, branch: str) -> Backbone:
        tensors = tensors_of(checkpoint)
        is_ddp = all(name.startswith("module.") for name in tensors)
        backbone = pick(tensors, invert(pairs), "module." if is_ddp else "", head)
        token = backbone.state.get("cls_token")
        width = None if token is None or not token.dim() else token.shape[-1]
        return backbone._replace(num_heads=num_heads.get(width))

    def write(state: State, architecture: Architecture) -> dict[str, Any]:
        return translate(state, pairs)

    return Format(read, write, *model)
