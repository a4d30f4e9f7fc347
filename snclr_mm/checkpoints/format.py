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
        prefix (str): Of the backbone's names in the checkpoint.
        num_heads (int, optional): Of a ViT, where the checkpoint tells.
        config (dict, optional): Of an MMPretrain backbone, where the checkpoint tells.
        library (str, optional): The format whose model it is, if not that of the
            checkpoint.
    """

    state: State
    renamed: dict[str, str]
    dropped: list[str]
    prefix: str
    num_heads: int | None = None
    config: dict | None = None
    library: str | None = None


class Format(NamedTuple):
    """How one library stores a backbone.

    Attributes:
        read: (checkpoint, branch) -> :class:`Backbone`; None if it is only written.
        write: (state with MMPretrain's names, architecture) -> what is saved. This and
            all that follow are None if the format is only read.
        build: architecture -> the library's own model, without classifier.
        features: (that model, image [1, 3, H, W]) -> its last features: of a ResNet
            the map [1, C, h, w], of a ViT the normalised tokens [1, 1 + h * w, C].
        usage: (path, architecture) -> how the library loads the file.
    """

    read: Callable[[dict, str], Backbone] | None
    write: Callable[[State, Architecture], dict[str, Any]] | None = None
    build: Callable[[Architecture], nn.Module] | None = None
    features: Callable[[nn.Module, Tensor], Tensor] | None = None
    usage: Callable[[Path, Architecture], str] | None = None


def tensors_of(checkpoint: dict) -> State:
    """The tensors of a checkpoint, under ``state_dict``, ``model`` or at its top."""
    inner = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
    if not isinstance(inner, dict):
        return {}
    return {name: value for name, value in inner.items() if isinstance(value, Tensor)}
