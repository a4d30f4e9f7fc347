import json

import pytest
from helpers.command import load_tool, tool
from helpers.downstream import require_downstream
from helpers.tiny import REPOSITORY


@pytest.fixture(scope="session")
def garment_scenes(digits_root, tmp_path_factory):
    """Folder of 16 + 4 scenes and 16 pictures, in data/ of a folder to run tools in.

    In data/tree-crowns are the same scenes with all garments as trees.
    """
    require_downstream()
    scenes = tmp_path_factory.mktemp("run") / "data/garment-scenes"
    load_tool("data/prepare_garment_scenes.py").prepare(
        scenes, digits_root, train=16, val=4, unlabeled=16
    )
    crowns = scenes.with_name("tree-crowns")
    (crowns / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (crowns / split).symlink_to(scenes / split)
        file = f"annotations/{split}.json"
        content = json.loads((scenes / file).read_text())
        content["categories"] = [{"id": 1, "name": "tree"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        (crowns / file).write_text(json.dumps(content))
    return scenes


@pytest.fixture(scope="session")
def scenes_checkpoint(garment_scenes):
    """What two steps of pretraining on the pictures wrote."""
    folder = garment_scenes.parents[1]
    tool(
        "train.py",
        REPOSITORY / "configs/small_images/snclr_r18-half_1xb128-25e_garment-scenes.py",
        "--work-dir",
        folder / "pretraining",
        "--cfg-options",
        "train_dataloader.batch_size=8",
        "train_dataloader.num_workers=0",
        "train_cfg.max_epochs=1",
        cwd=folder,
    )
    return folder / "pretraining/epoch_1.pth"
