import dataclasses
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import matplotlib.cbook
import mmcv
import numpy as np
import torch
from mmpretrain.models.utils import resize_pos_embed
from safetensors.torch import save
from torch import Tensor

from snclr_mm.checkpoint_safety import read_checkpoint, read_safetensors

from .architecture import (
    Architecture,
    ConfiguredArchitecture,
    State,
    ViTArchitecture,
    infer_architecture,
    load_exactly,
)
from .format import tensors_of
from .formats.detectron2_format import DETECTRON2
from .formats.downstream_format import MMDET, MMSEG
from .formats.mmpretrain_format import (
    MMPRETRAIN,
    PREFIX,
    SAFETENSORS,
    check_computation,
)
from .formats.moco_v3_format import MOCO_V3
from .formats.timm_format import TIMM
from .formats.torchvision_format import TORCHVISION

#: Every format by the name that tools/convert_checkpoint.py takes.
FORMATS = {
    "mmpretrain": MMPRETRAIN,
    "mmdet": MMDET,
    "mmseg": MMSEG,
    "torchvision": TORCHVISION,
    "timm": TIMM,
    "detectron2": DETECTRON2,
    "safetensors": SAFETENSORS,
    "moco-v3": MOCO_V3,
}
SOURCES = tuple(name for name, form in FORMATS.items() if form.read)
TARGETS = tuple(name for name, form in FORMATS.items() if form.write)
BRANCHES = ("online", "momentum")
#: How to get a library that a format is checked with.
INSTALL = {
    "mmdet": "pip install -e '.[downstream]' and mmcv with ops, see docs/downstream.md",
    "mmseg": "pip install -e '.[downstream]' and mmcv with ops, see docs/downstream.md",
    "timm": "pip install -e '.[timm]'",
    "torchvision": "pip install torchvision",
    "detectron2": "install it from source, as its documentation says",
}
#: Averaged weights beside those that are converted, in timm, torchvision and MMEngine.
EMA = ("state_dict_ema", "model_ema", "ema_state_dict")
#: Largest allowed difference of a feature, in double precision.
TOLERANCE = 1e-5


class Conversion(NamedTuple):
    """What :func:`convert_checkpoint` did.

    Attributes:
        architecture: Of the backbone.
        renamed (dict[str, str]): The source's names -> the target's, of all that was
            kept.
        dropped (list[str]): The source's other tensors.
        lost (list[str]): The backbone's tensors for which the target has no place.
        difference (float, optional): Largest absolute difference between the features
            of source and target on the image; None where it was not compared.
        usage (str): How the target library loads the file.
    """

    architecture: Architecture
    renamed: dict[str, str]
    dropped: list[str]
    lost: list[str]
    difference: float | None
    usage: str


@torch.no_grad()
def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    to: str,
    source_format: str = "mmpretrain",
    branch: str = "online",
    image_size: int | None = None,
    num_heads: int | None = None,
    verify: bool = True,
    trust: bool = False,
) -> Conversion:
    """Convert a backbone's weights from one library to another.

    The result is written beside its place, read back, loaded into the target library's
    own model, and its features of Matplotlib's photograph are compared in double
    precision with the source's; only then does it take its place.

    Args:
        source (str | Path): A file, or a URL that MMEngine can read.
        target (str | Path): The file to write; ``.safetensors`` for that container,
            where the format is a flat dict of tensors.
        to (str): One of :data:`TARGETS`.
        source_format (str): One of :data:`SOURCES`. Defaults to 'mmpretrain', which is
            also what this project's training writes.
        branch (str): 'online' or 'momentum' encoder. Defaults to 'online'.
        image_size (int, optional): Resize a ViT's position embedding (bicubic) for
            square images of so many pixels. Defaults to None: unchanged.
        num_heads (int, optional): Of a ViT; needed where the checkpoint does not tell.
        verify (bool): Whether to compare. Defaults to True.
        trust (bool): Read a source that holds more than tensors and plain data; such a
            pickle can run any code. Defaults to False.

    Returns:
        Conversion: What was kept, renamed and dropped, and the difference.

    Raises:
        ValueError: If an option or the checkpoint does not fit, or the features differ
            by more than :data:`TOLERANCE`. Nothing is written then.
        ImportError: If the target's library is missing; the message says how to get it.
        CheckpointError: If the source is broken, or holds more than tensors and
            ``trust`` is False.
    """
    target = Path(target)
    _check_options(to, source_format, branch, source, target)
    form = FORMATS[to]
    checkpoint = _read(source, trust)
    backbone = FORMATS[source_format].read(checkpoint, branch)
    for name in EMA:
        averaged = checkpoint.get(name)
        if isinstance(averaged, dict):
            backbone.dropped.extend(f"{name}.{key}" for key in averaged)
    config = backbone.config or {}
    by_config = to in ("mmpretrain", "safetensors") and "type" in config
    try:
        architecture = infer_architecture(
            backbone.state, num_heads if num_heads is not None else backbone.num_heads
        )
        check_computation(config)
        if by_config:
            load_exactly(MMPRETRAIN.build(architecture), backbone.state)
    except ValueError:
        if not by_config:
            raise
        architecture = ConfiguredArchitecture(config)
    state = {name: value.contiguous() for name, value in backbone.state.items()}
    for name, value in state.items():
        if value.is_complex() or not value.isfinite().all():
            raise ValueError(
                f"{source}: {backbone.renamed[name]} is complex or not finite."
            )
    if image_size is not None:
        state, architecture = resize(state, architecture, image_size)
    # Strictly into MMPretrain's model: a tensor too many or too few ends here.
    try:
        reference = load_exactly(MMPRETRAIN.build(architecture), state)
    except ValueError as error:
        raise ValueError(
            f"{error}\nWith --from {source_format} {source} should hold a plain "
            f"{architecture}; other sources: {', '.join(SOURCES)}."
        ) from None

    saved = form.write(state, architecture)
    difference = None
    # Written beside its place, which it takes if all goes well; else it vanishes.
    with tempfile.TemporaryDirectory(dir=target.absolute().parent) as folder:
        part = Path(folder) / target.name
        if part.suffix == ".safetensors":
            # save_file would let nobody else read the file.
            part.write_bytes(save(saved, metadata={"format": "pt"}))
        else:
            torch.save(saved, part)
        if verify:
            picture = read_image(getattr(architecture, "image_size", 224))
            library = backbone.library or source_format
            # The source's own model has other positions than a resized one.
            if library == "mmpretrain" or image_size is not None:
                expected = MMPRETRAIN.features(reference, picture)
            else:
                own = {
                    old.removeprefix(backbone.prefix): backbone.state[new]
                    for new, old in backbone.renamed.items()
                }
                expected = _features(library, own, architecture, picture)
            found = _features(to, tensors_of(_read(part)), architecture, picture)
            difference = float((found - expected).abs().max())
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"The features of the {to} model differ by {difference:.3g} from "
                    f"the source's, more than {TOLERANCE:g}: nothing was written."
                )
        os.replace(part, target)

    written = {id(value): name for name, value in tensors_of(saved).items()}
    names = {backbone.renamed[new]: written.get(id(v)) for new, v in state.items()}
    return Conversion(
        architecture=architecture,
        renamed={old: new for old, new in names.items() if new is not None},
        dropped=backbone.dropped,
        lost=[old for old, new in names.items() if new is None],
        difference=difference,
        usage=form.usage(target, architecture),
    )


def resize(
    state: State, architecture: Architecture, image_size: int
) -> tuple[State, Architecture]:
    """Resize a ViT's position embedding, bicubic, as MMPretrain does when it loads."""
    if not isinstance(architecture, ViTArchitecture):
        raise ValueError(
            f"--image-size {image_size} is for plain ViTs, not for a {architecture}."
        )
    patch = architecture.patch_size
    if image_size < patch or image_size % patch:
        raise ValueError(
            f"--image-size {image_size} must be a multiple of the patch size {patch}."
        )
    old, new = architecture.image_size // patch, image_size // patch
    embedding = resize_pos_embed(state["pos_embed"], (old, old), (new, new), "bicubic")
    state = {**state, "pos_embed": embedding}
    return state, dataclasses.replace(architecture, image_size=image_size)


def read_image(size: int) -> Tensor:
    """Matplotlib's photograph, normalised and square, [1, 3, size, size], float64."""
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    picture = mmcv.imread(str(path))
    picture = mmcv.imresize(picture[..., ::-1], (size, size)).astype(np.float64)
    picture = (picture - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].copy())


def _features(
    name: str, state: State, architecture: Architecture, picture: Tensor
) -> Tensor:
    """Features of a library's own model with these weights, all of them."""
    try:
        model = FORMATS[name].build(architecture)
    except ImportError as error:
        raise ImportError(
            f"Features cannot be compared without {name} ({error}): "
            f"{INSTALL.get(name, 'install it')}; or pass --no-verify."
        ) from error
    bare = {key.removeprefix(PREFIX): value for key, value in state.items()}
    return FORMATS[name].features(load_exactly(model, bare), picture)


def summarize_dropped(names: list[str]) -> dict[str, int]:
    """Count tensors by the first part of their name (two, behind ``module.``)."""
    parts = (name.removeprefix("module.").partition(".")[0] for name in names)
    return dict(Counter(parts))


def _check_options(
    to: str, source_format: str, branch: str, source: str | Path, target: Path
) -> None:
    for option, value, allowed in (
        ("--to", to, TARGETS),
        ("--from", source_format, SOURCES),
        ("--branch", branch, BRANCHES),
    ):
        if value not in allowed:
            raise ValueError(f"{option} {value!r}: use one of {', '.join(allowed)}.")
    if source_format in ("timm", "torchvision") and branch != "online":
        raise ValueError(
            f"--branch {branch}: {source_format}'s models have one encoder."
        )
    container = target.suffix == ".safetensors"
    if container and to not in ("safetensors", "timm", "torchvision"):
        raise ValueError(f"{target}: --to {to} is no flat dict; name it .pth.")
    if to == "safetensors" and not container:
        raise ValueError(f"{target}: a safetensors file is named .safetensors.")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise ValueError(f"{target} must be a file in a folder that exists.")
    if to == "detectron2" and target.suffix != ".pth":
        raise ValueError(f"{target}: detectron2 takes torch's files named .pth.")
    if target.absolute() == Path(source).absolute():
        raise ValueError(f"{target} is IN itself, whose other parts would be lost.")


def _read(path: str | Path, trust: bool = False) -> dict:
    is_url = "://" in str(path)
    if not is_url and not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    if str(path).partition("?")[0].endswith(".safetensors"):
        if is_url:
            raise ValueError(f"{path}: download it first; a .pth may be a URL.")
        return read_safetensors(path)
    checkpoint = read_checkpoint(path, trust)
    if not tensors_of(checkpoint):
        raise ValueError(f"{path} holds no tensors.")
    return checkpoint
