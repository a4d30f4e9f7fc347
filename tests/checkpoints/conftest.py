import pytest
from command import tool
from tiny import REPOSITORY

OPTIONS = [
    "train_dataloader.batch_size=8",
    "train_dataloader.num_workers=0",
    "train_dataloader.dataset.pipeline.1.transforms.0.0.scale=32",
    "train_dataloader.dataset.pipeline.1.transforms.1.0.scale=32",
    "model.neck.hid_channels=64",
    "model.head.predictor.hid_channels=64",
    "model.head.queue.length=50",
    "model.head.num_neighbors=5",
    "train_cfg.max_epochs=1",
    "param_scheduler=[]",
]
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
        *OPTIONS,
        option,
        cwd=work_dir,
    )
    return request.param, work_dir / "epoch_1.pth"
