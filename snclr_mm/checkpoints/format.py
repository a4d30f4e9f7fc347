from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from .architecture import Architecture, State


class Backbone(NamedTuple):
    """What a checkpoint holds of a backbone.

    Attributes:
        state (dict[str, Tensor]): MMPretrain's names, without prefix.
        renamed (dict[str, str]): MMPretrain's name -> the name in the checkpoint.
        dropped (list[str]): The checkpoint's other tensors.
        num_heads (int, optional): Of a ViT, where the checkpoint tells.
    """

    state: State
    renamed: dict[str, str]
    dropped: list[str]
    num_heads: int | None = None


class Format(NamedTuple):
    """How one library stores a backbone.

    Attributes:
        read: (checkpoint, branch) -> :class:`Backbone`; None if it is only written.
        write: (state with MMPretrain's names, architecture) -> what is saved; None if
            the format is only read.
        load: (what is saved, architecture) -> the library's own model with all these
            weights, in double precision; ImportError says how to install the library.
        features: (that model, image [1, 3, H, W]) -> its last features: of a ResNet
            the map [1, C, h, w], of a ViT the normalised tokens [1, 1 + h * w, C].
        usage: (path, architecture) -> how the library loads the file; None if the
            format is only read.
    """

    read: Callable[[dict, str], Backbone] | None
    write: Callable[[State, Architecture], dict[str, Any]] | None
    load: Callable[[dict[str, Any], Architecture], nn.Module]
    features: Callable[[nn.Module, Tensor], Tensor]
    usage: Callable[[Path, Architecture], str] | None = None


def tensors_of(checkpoint: dict) -> State:
    """The tensors of a checkpoint, under ``state_dict``, ``model`` or at its top."""
    inner = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
    if not isinstance(inner, dict):
        return {}
    return {name: value for name, value in inner.items() if isinstance(value, Tensor)}
