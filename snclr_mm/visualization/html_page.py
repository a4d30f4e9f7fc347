import base64
import io
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EDGE = 96  # of the pictures in a page, at most, pixels


def write_page(template: str, data: dict, path: str | Path) -> None:
    """Write a self-contained HTML page: a template of this package, and its data.

    The data cannot leave the JSON that it is written as, whatever its strings hold, and
    the templates show strings as text. ``head.html``, which all begin with, forbids the
    page to load anything.

    Args:
        template (str): File in ``templates/``.
        data (dict): As for :func:`json.dumps`; what is not finite becomes null.
        path (str | Path): File to write; its folder is made.
    """
    templates = files(__package__).joinpath("templates")
    page = templates.joinpath(template).read_text("utf-8")
    head = templates.joinpath("head.html").read_text("utf-8")
    page = page.replace("{{head}}\n", head)
    text = json.dumps(_finite(data), separators=(",", ":")).replace("<", "\\u003c")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page.replace("{{data}}", text), encoding="utf-8")


def describe_images(
    images: Sequence[np.ndarray],
    names: Sequence[str],
    labels: Sequence[int | None] | None = None,
    classes: Sequence[str] = (),
    about: str = "",
) -> dict[str, Any]:
    """The part of a page's data that its images are, as small copies.

    Args:
        images (Sequence[np.ndarray]): n images, RGB, [H, W, 3], uint8.
        names (Sequence[str]): Of the files or the like, n.
        labels (Sequence[int | None], optional): n; None where it is not known.
            Defaults to None: there are no labels.
        classes (Sequence[str]): Names of the labels; those without show their number.
        about (str): What the images are. Defaults to "".
    """
    return {
        "about": about,
        "images": [
            encode_picture(Image.fromarray(np.ascontiguousarray(image)), EDGE)
            for image in images
        ],
        "names": list(names),
        "labels": labels and list(labels),
        "classes": list(classes),
    }


def encode_picture(picture: Image.Image, edge: int) -> str:
    """WebP in base64, with at most ``edge`` pixels in height and width."""
    buffer = io.BytesIO()
    picture = picture.convert("RGB")
    picture.thumbnail((edge, edge))
    picture.save(buffer, "WEBP", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
