import pytest
from command import SMALL_PICTURES, tool
from tiny import REPOSITORY

CONFIGS = {
    "resnet50": ("configs/snclr_r50_8xb256.py", "optim_wrapper.optimizer.lr=0.1"),
    "vit-small": (
        "configs/imagenet/snclr_vit-small-p16_8xb512-300e_in1k.py",
        "model.backbone.img_size=32",
    ),
}


@pytest.fixture(scope="session", params=CONFIGS)
def trained(request, image_folder, tmp_path_factory):
    """(name, checkpoint): what tools/train.py wrote after six steps, at full width."""
    config, option = CONFIGS[request.param]
    work_dir = tmp_path_factory.mktemp(request.param)
    tool(
        "train.py",
        REPOSITORY / config,
        "--no-validate",
        "--work-dir",
        work_dir,
        "--cfg-options",
        f"train_dataloader.dataset.data_root={image_folder}",
        "train_dataloader.batch_size=8",
        *SMALL_PICTURES,
        option,
        cwd=work_dir,
    )
    return request.param, work_dir / "epoch_1.pth"
