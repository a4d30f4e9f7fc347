"""A folder as somebody new might have it: photographs, and much else."""

import numpy as np
from PIL import Image

#: Number of images that can be read, and of files that only look like images.
READABLE, UNREADABLE = 24, 4


def write_mixed_folder(root, photos):
    """Files of every kind below ``root``, in two sub-folders and beside them."""
    tiles = [
        Image.fromarray(photo[y : y + 64, x : x + 80])
        for photo in photos
        for y in range(0, 300, 50)
        for x in (100, 300)
    ]
    names = [f"china/photo {i}, ä.jpg" for i in range(7)]
    names += [f"flower/日本 {i}.png" for i in range(7)]
    for name, tile in zip(names, tiles[:7] + tiles[12:], strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        tile.save(root / name)
    deep = root / "china/nested/deep"
    deep.mkdir(parents=True)
    sixteen = np.asarray(tiles[0].convert("L")).astype(np.uint16) * 257
    for name, tile in {
        "rgba.png": tiles[1].convert("RGBA"),
        "sixteen bits.png": Image.fromarray(sixteen),
        "cmyk.jpg": tiles[2].convert("CMYK"),
        "gray.jpg": tiles[3].convert("L"),
        "palette.gif": tiles[4],
        "modern.webp": tiles[5],
        "large.TIFF": tiles[6],
        "old.BMP": tiles[7],
        "camera.jfif": tiles[8],
        "last.ppm": tiles[9],
    }.items():
        tile.save(deep / name, "JPEG" if name.endswith("jfif") else None)
    whole = (deep / "gray.jpg").read_bytes()
    (root / "flower/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "flower/empty.jpg").touch()
    (root / "flower/text.jpg").write_text("This is text.")
    tiles[0].crop((0, 0, 1, 1)).save(root / "flower/one.png")
    (root / "flower/notes.txt").write_text("This is text, too.")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails/small.jpg").write_bytes(whole)
    (root / "china/._resource.jpg").write_bytes(b"of a Mac")
    return root
