import base64
import io
import math
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.command import load_tool
from helpers.pages import read_data
from helpers.tiny import tiny_config
from mmpretrain.registry import MODELS
from PIL import Image

from snclr_mm.visualization import (
    FoundNeighbors,
    find_neighbors,
    write_neighbor_browser,
)
from snclr_mm.visualization.neighbor_browser import purity

browse = load_tool("visualization/browse_neighbors.py")
EVIL = "<script>alert(1)</script>"
K = 4


@pytest.fixture(scope="module")
def run(digits_root, image_folder, tmp_path_factory):
    """A config, its checkpoint with random weights, and folders of images."""
    folder = tmp_path_factory.mktemp("browser")
    cfg = tiny_config(digits_root, folder)
    dataset = dict(cfg.train_dataloader.dataset, split="test", test_mode=True)
    dataset["pipeline"] = [
        dict(type="LoadImage"),
        dict(type="Resize", scale=(28, 28)),
        dict(type="PackInputs"),
    ]
    dataset["indices"] = 360
    cfg.val_dataloader = dict(dataset=dataset)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    config = folder / "tiny.py"
    cfg.dump(config)
    model = MODELS.build(cfg.model)
    checkpoint = folder / "epoch_1.pth"
    meta = {"cfg": cfg.pretty_text}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, checkpoint)
    evil = folder / "photos"
    shutil.copytree(image_folder / "china", evil / "china")
    # A slash cannot be in a name.
    shutil.copytree(image_folder / "flower", evil / EVIL.replace("/", "!"))
    return folder, config, checkpoint, model.eval(), evil


def test_page_of_the_configs_data(run, digits_root, tmp_path):
    """Each number against a plain loop over the neighbors."""
    _, config, checkpoint, model, _ = run
    out = browse.main(
        [str(config), str(checkpoint), "--num-queries=50", f"--out={tmp_path}"]
    )
    assert out == tmp_path / "neighbors.html"
    data = read_data(out)
    (run_data,) = data["runs"]
    rows = np.linspace(0, 359, 50).round().astype(int)
    images = np.frombuffer(
        (digits_root / "t10k-images-idx3-ubyte").read_bytes(), "u1", -1, 16
    )
    labels = np.frombuffer(
        (digits_root / "t10k-labels-idx1-ubyte").read_bytes(), "u1", -1, 8
    )
    images, labels = images.reshape(-1, 28, 28)[rows], labels[rows].tolist()
    assert data["labels"] == labels and data["names"] == [str(row) for row in rows]
    shown = Image.open(io.BytesIO(base64.b64decode(data["images"][7])))
    assert np.abs(np.asarray(shown.convert("L")) - images[7].astype(float)).mean() < 12

    inputs = torch.tensor(images)[:, None].repeat(1, 3, 1, 1)
    with torch.no_grad():
        batch = {"inputs": inputs, "data_samples": [None] * 50}
        inputs = model.data_preprocessor(batch)["inputs"]
        keys = F.normalize(model.momentum_encoder(inputs)[0], dim=1)
        y_1 = model.neck(model.backbone(inputs))[0]
    for i in range(50):
        similarity = (keys @ keys[i]).tolist()
        order = sorted((j for j in range(50) if j != i), key=lambda j: -similarity[j])[
            :K
        ]
        found = run_data["index"][i]
        expected = [similarity[j] for j in order]
        assert [similarity[j] for j in found] == pytest.approx(expected, abs=1e-5)
        assert [v / 1000 for v in run_data["similarity"][i]] == pytest.approx(
            expected, abs=1e-3
        )
        weight = model.head.attention(y_1[i : i + 1], keys[found][None])[0].tolist()
        assert [v / 1000 for v in run_data["positiveness"][i]] == pytest.approx(
            [K * w for w in weight], abs=1e-3
        )
        entropy = -sum(w * math.log(w) for w in weight) / math.log(K)
        assert run_data["entropy"][i] / 1000 == pytest.approx(entropy, abs=1e-3)
        same = sum(labels[j] == labels[i] for j in found) / K
        assert run_data["purity"][i] == pytest.approx(same)


def test_entropy_is_that_of_all_neighbors(tmp_path):
    """Of some of the K it is not known."""
    index = torch.arange(8).view(2, 4)
    score = torch.full((2, 4), 0.25)
    for chance, expected in ((1 / 4, [1000, 1000]), (1 / 8, None)):
        found = FoundNeighbors(index, score, score, chance)
        write_neighbor_browser(tmp_path / "a.html", {"labels": None}, {"run": found})
        assert read_data(tmp_path / "a.html")["runs"][0]["entropy"] == expected


def test_purity():
    index = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 2]])
    assert purity(index, [0, 0, 1, None]) == [0.5, 0.5, 0, None]
    assert purity(index, [0, None, 1, 1]) == [0, None, 0, 0.5]


def test_folder_colors_and_hostile_names(run, tmp_path, capsys):
    """Beside it a checkpoint without soft neighbors, of another config."""
    folder, config, checkpoint, _, photos = run
    cfg = tiny_config(folder, folder)
    cfg.model.head.num_neighbors = 0
    cfg.model.data_preprocessor = cfg.data_preprocessor
    other = tmp_path / "epoch_9.pth"
    state = MODELS.build(cfg.model).state_dict()
    torch.save({"meta": {"cfg": cfg.pretty_text}, "state_dict": state}, other)
    options = [str(config), str(checkpoint), f"--data-root={photos}"]
    page = browse.main(
        [*options, f"--out={tmp_path / 'a.html'}", "--compare", str(other)]
    )
    assert "48 of the 48 images" in capsys.readouterr().out
    text = page.read_text()
    assert text.count("<script") == 3 and text.count("</script>") == 3
    addresses = text.replace("http://www.w3.org/2000/svg", "")  # a name, not loaded
    assert "http://" not in addresses and "https://" not in addresses
    data = read_data(page)
    assert data["classes"] == [EVIL.replace("/", "!"), "china"]
    assert sorted(data["labels"]) == [0] * 24 + [1] * 24
    assert [run["name"] for run in data["runs"]] == ["epoch_1.pth", "epoch_9.pth"]
    assert data["runs"][1]["positiveness"] is None
    assert len(data["runs"][0]["index"][0]) == K
    assert len(data["runs"][1]["index"][0]) == 30
    # Colors in their order, red first.
    i = data["names"].index("china/0.png")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["images"][i]))))
    truth = cv2.imread(str(photos / "china/0.png"))[..., ::-1]
    assert np.abs(shown.mean((0, 1)) - truth.mean((0, 1))).max() < 3
    assert np.ptp(truth.mean((0, 1))) > 10

    page = browse.main([*options, "--map", f"--out={tmp_path}"])
    assert page == tmp_path / "map.html"
    shown, data = data, read_data(page)
    assert data["images"] == shown["images"] and data["labels"] == shown["labels"]
    assert len(data["runs"][0]["x"]) == 48 and len(set(data["runs"][0]["x"])) > 24

    picture = browse.main([*options, f"--out={tmp_path / 'a.png'}"])
    assert cv2.imread(str(picture)).std() > 10


def test_queries_in_a_batch_find_the_same(run):
    model = run[3]
    batch = {"inputs": torch.randint(0, 255, (20, 3, 28, 28), dtype=torch.uint8)}
    batch["data_samples"] = [None] * 20
    everyone = find_neighbors(model, [batch])
    rows = torch.tensor([3, 11])
    queries = {"inputs": batch["inputs"][rows], "data_samples": [None] * 2}
    some = find_neighbors(model, [batch], queries, own=rows)
    assert everyone.index[rows].tolist() == some.index.tolist()
    for name in ("similarity", "score"):
        torch.testing.assert_close(getattr(everyone, name)[rows], getattr(some, name))
    assert everyone.chance == some.chance == 1 / K


def test_bad_input(run, digits_root, tmp_path, capsys):
    folder, config, checkpoint, _, photos = run
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(photos / "china/0.png", tmp_path / "one")
    other = tiny_config(folder, folder, model__neck__hid_channels=20)
    other.dump(tmp_path / "other.py")
    moved = tiny_config(tmp_path / "moved", folder)
    moved.model.data_preprocessor = moved.data_preprocessor
    moved.dump(tmp_path / "moved.py")
    (tmp_path / "list.txt").write_text("china/0.png 0\nchina/gone.png 1\n")
    listed = tiny_config(tmp_path, folder)
    listed.model.data_preprocessor = listed.data_preprocessor
    listed.val_dataloader = dict(
        dataset=dict(
            type="CustomDataset",
            data_root=str(photos),
            ann_file=str(tmp_path / "list.txt"),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="PackInputs")],
        )
    )
    listed.dump(tmp_path / "listed.py")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    broken = {
        key: value * torch.nan if value.is_floating_point() else value
        for key, value in state.items()
    }
    torch.save({"state_dict": broken}, tmp_path / "nan.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    for arguments, message in [
        ([config, tmp_path / "lost.pth"], "lost.pth"),
        ([tmp_path / "lost.py", checkpoint], "There is no config"),
        (
            [tmp_path / "other.py", checkpoint],
            "epoch_1.pth is not a checkpoint of .*other.py",
        ),
        ([config, tmp_path / "text.pth"], "text.pth"),
        ([config, tmp_path / "nan.pth", f"--data-root={photos}"], "not finite"),
        (
            [tmp_path / "moved.py", checkpoint],
            "train_dataloader.dataset.data_root=.*moved' does not exist",
        ),
        ([tmp_path / "listed.py", checkpoint], "gone.png' can't be read"),
        ([config, checkpoint, f"--data-root={tmp_path / 'empty'}"], "holds no image"),
        (
            [config, checkpoint, f"--data-root={tmp_path / 'one'}"],
            "1 of the 1 images.*others as neighbors",
        ),
        (
            [config, checkpoint, f"--data-root={tmp_path / 'lost'}"],
            "lost.* does not exist",
        ),
    ]:
        with pytest.raises(SystemExit) as error:
            browse.main([*map(str, arguments), f"--out={tmp_path / 'no.html'}"])
        assert re.search(message, str(error.value)), (arguments, error.value)
    assert not (tmp_path / "no.html").exists()
    with pytest.raises(SystemExit):
        browse.main([str(config), str(checkpoint), "--num-queries=1"])
    assert "--num-queries 1: must be at least 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        browse.main([str(config), str(checkpoint), "--map", "--out=a.png"])
    assert "--map writes a page" in capsys.readouterr().err
