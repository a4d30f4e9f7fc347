"""Pretraining, then detection and instance segmentation, by the docs' commands."""

import json

import pytest
from command import tool
from tiny import REPOSITORY

DETECTION = REPOSITORY / "configs/benchmarks/mmdetection"
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
def test_transfer_to_detection(config, metrics, garment_scenes, scenes_checkpoint):
    work_dir = garment_scenes.parents[1] / config
    output = tool(
        "train.py",
        DETECTION / config,
        "--pretrained",
        scenes_checkpoint,
        "--work-dir",
        work_dir,
        "--cfg-options",
        *SHORT,
        cwd=garment_scenes.parents[1],
    )
    assert "Iter(train) [2/2]" in output or "Saving checkpoint at 2 iter" in output
    out = work_dir / "metrics.json"
    tool(
        "test.py",
        DETECTION / config,
        work_dir / "iter_2.pth",
        "--work-dir",
        work_dir,
        "--out",
        out,
        "--cfg-options",
        *SHORT,
        cwd=garment_scenes.parents[1],
    )
    found = json.loads(out.read_text())
    assert all(0 <= found[metric] <= 1 for metric in metrics)


def test_wrong_prefix_stops(garment_scenes, scenes_checkpoint):
    output = tool(
        "train.py",
        DETECTION / "tree-crowns/faster-rcnn_r18-half_fpn_1xb4-400_tree-crowns.py",
        "--pretrained",
        scenes_checkpoint,
        "--cfg-options",
        "model.backbone.init_cfg.prefix=encoder.",
        cwd=garment_scenes.parents[1],
        fails=True,
    )
    assert "model.backbone.init_cfg.prefix is wrong" in output
