"""Pretraining, then detection and instance segmentation, by the docs' commands."""

import json
import shutil

import pytest
from helpers.command import call, tool
from helpers.tiny import REPOSITORY

DETECTION = REPOSITORY / "configs/benchmarks/mmdetection"
CROWNS = DETECTION / "tree-crowns/faster-rcnn_r18-half_fpn_1xb4-400_tree-crowns.py"
SHORT = [
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=2",
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "val_dataloader.num_workers=0",
    "test_dataloader.num_workers=0",
    "model.test_cfg.rcnn.score_thr=0.0",
]


@pytest.mark.parametrize(
    ("config", "metrics"),
    [
        (
            "tree-crowns/faster-rcnn_r18-half_fpn_1xb4-400_tree-crowns.py",
            ["coco/bbox_mAP"],
        ),
        (
            "garment-scenes/mask-rcnn_r18-half_fpn_1xb8-400_garment-scenes.py",
            ["coco/bbox_mAP", "coco/segm_mAP"],
        ),
    ],
    ids=["detection", "instance segmentation"],
)
def test_transfer_to_detection(
    config, metrics, garment_scenes, scenes_checkpoint, monkeypatch
):
    monkeypatch.chdir(garment_scenes.parents[1])
    work_dir = garment_scenes.parents[1] / config
    call(
        "train.py",
        DETECTION / config,
        "--pretrained",
        scenes_checkpoint,
        "--work-dir",
        work_dir,
        "--cfg-options",
        *SHORT,
    )
    out = work_dir / "metrics.json"
    call(
        "test.py",
        DETECTION / config,
        work_dir / "iter_2.pth",
        "--work-dir",
        work_dir,
        "--out",
        out,
        "--cfg-options",
        *SHORT,
    )
    found = json.loads(out.read_text())
    assert all(0 <= found[metric] <= 1 for metric in metrics)


def test_wrong_prefix_stops(garment_scenes, scenes_checkpoint, monkeypatch):
    monkeypatch.chdir(garment_scenes.parents[1])
    options = ["--pretrained", scenes_checkpoint, "--cfg-options"]
    options.append("model.backbone.init_cfg.prefix=encoder.")
    with pytest.raises(ValueError, match="model.backbone.init_cfg.prefix is wrong"):
        call("train.py", CROWNS, *options)


def test_bad_annotations_stop(garment_scenes, scenes_checkpoint, tmp_path, monkeypatch):
    """Also when testing."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data/tree-crowns"
    shutil.copytree(garment_scenes.with_name("tree-crowns"), data)
    for split in ("train", "val"):
        path = data / f"annotations/{split}.json"
        content = json.loads(path.read_text())
        content["annotations"][2]["bbox"] = [500, 0, 5, 5]
        path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="1 of.*train.json are outside of their image"):
        call("train.py", CROWNS, "--pretrained", scenes_checkpoint)
    with pytest.raises(ValueError, match="val.json are outside of their image"):
        call("test.py", CROWNS, "none.pth")


SMALL = {
    "detection": (
        "data/prepare_tree_crowns.py",
        "snclr_r18-half_1xb128-1500i_tree-crowns",
        "iter_1500.pth",
        CROWNS,
        "box AP",
    ),
    "instance segmentation": (
        "data/prepare_garment_scenes.py",
        "snclr_r18-half_1xb128-25e_garment-scenes",
        "epoch_25.pth",
        DETECTION / "garment-scenes/mask-rcnn_r18-half_fpn_1xb8-400_garment-scenes.py",
        "mask AP",
    ),
    "semantic segmentation": (
        "data/prepare_garment_scenes.py",
        "snclr_r18-half_1xb128-25e_garment-scenes",
        "epoch_25.pth",
        REPOSITORY / "configs/benchmarks/mmsegmentation/garment-scenes/"
        "fcn_r18-half-d8_1xb8-400_garment-scenes.py",
        "mIoU",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", SMALL)
def test_small_transfer(task, tmp_path, monkeypatch):
    """The commands of docs/downstream.md on real data: transfer beats random weights.

    About 20 minutes on two cores. The tree crowns come from PyPI.
    """
    monkeypatch.delenv("PIP_NO_INDEX")
    prepare_data, pretraining, checkpoint, config, metric = SMALL[task]
    if task != "detection":
        tool("data/prepare_fashion_mnist.py", "data/fashion-mnist", cwd=tmp_path)
    tool(prepare_data, cwd=tmp_path)
    pretraining_config = REPOSITORY / f"configs/small_images/{pretraining}.py"
    tool("train.py", pretraining_config, cwd=tmp_path, timeout=3600)
    tool(
        "compare.py",
        *(config, "--pretrained"),
        f"work_dirs/{pretraining}/{checkpoint}",
        *("--seeds", 0, "--jobs", 2, "--work-dir", "out"),
        cwd=tmp_path,
        timeout=3600,
    )
    curves = json.loads((tmp_path / "out/results.json").read_text())["curves"]
    end = {arm: curves[arm][metric]["0"][-1][1] for arm in ("random", "pretrained")}
    assert end["pretrained"] > end["random"] > 1
