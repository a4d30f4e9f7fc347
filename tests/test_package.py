import sys
from pathlib import Path

from helpers.configs import full_schedule
from helpers.tiny import REPOSITORY
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS
from mmpretrain.registry import DATASETS, HOOKS, LOOPS, MODELS, TRANSFORMS

import snclr_mm


def test_import_registers_every_component():
    for registry, names in {
        MODELS: "SNCLR SoftNeighborHead NearestNeighborHead CrossAttentionNeck "
        "NeighborQueue AugmentDataPreprocessor MeanShiftHead RelationalHead "
        "NeighborKeys",
        HOOKS: "NeighborQueueHook",
        LOOPS: "KNNValLoop KNNTestLoop",
        DATASETS: "ImageFolder",
        TRANSFORMS: "LoadImage FastRandomResizedCrop",
        MODEL_WRAPPERS: "CPUDistributedDataParallel",
    }.items():
        for name in names.split():
            assert registry.get(name).__module__.startswith("snclr_mm.")


def test_public_names():
    from snclr_mm.engine import NeighborQueueHook
    from snclr_mm.models import (
        SNCLR,
        CrossAttentionNeck,
        NearestNeighborHead,
        NeighborQueue,
        SoftNeighborHead,
        soft_neighbor_loss,
    )

    public = (SNCLR, CrossAttentionNeck, NearestNeighborHead, NeighborQueue)
    public += (SoftNeighborHead, soft_neighbor_loss, NeighborQueueHook)
    assert all(item.__doc__ for item in public)
    assert snclr_mm.__version__


def test_headline_recipe():
    """MoCo v3's published ResNet-50 recipe for 100 epochs, and SNCLR's K."""
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r50_8xb256.py")
    stock = Config.fromfile(
        f"{sys.modules['mmpretrain'].__path__[0]}/.mim/configs/mocov3/"
        "mocov3_resnet50_8xb512-amp-coslr-100e_in1k.py"
    )
    assert cfg.optim_wrapper.optimizer.lr == 0.6 * 8 * 256 / 256
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    # LARS, in fewer launches.
    ours = dict(type="ForeachLARS", lr=cfg.optim_wrapper.optimizer.lr)
    assert cfg.optim_wrapper.optimizer == {**stock.optim_wrapper.optimizer, **ours}
    assert cfg.optim_wrapper.paramwise_cfg == stock.optim_wrapper.paramwise_cfg
    assert full_schedule(cfg) == full_schedule(stock)
    assert cfg.train_cfg.max_epochs == stock.train_cfg.max_epochs
    for part in ("backbone", "base_momentum"):
        assert cfg.model[part] == stock.model[part]
    assert cfg.model.neck == stock.model.neck
    assert cfg.model.head.predictor == stock.model.head.predictor
    assert cfg.model.head.temperature == stock.model.head.temperature
    assert cfg.model.head.loss_weight == stock.model.head.loss.loss_weight
    views = cfg.train_dataloader.dataset.pipeline[1]
    assert views == stock.train_dataloader.dataset.pipeline[1]
    assert cfg.model.head.num_neighbors == 30
    assert cfg.model.head.queue.length == 65536


def test_headline_reads_training_images_only(image_folder, tmp_path, monkeypatch):
    images = sorted(image_folder.glob("*/*"))
    for split, part in (("train", images[::2]), ("val", images[1::2])):
        for image in part:
            target = tmp_path / "data/imagenet" / split / image.parent.name / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image.read_bytes())
    (tmp_path / "data/imagenet/meta").mkdir()
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r50_8xb256.py")
    loaders = (cfg.train_dataloader, cfg.val_cfg.bank_dataloader, cfg.val_dataloader)
    paths = []
    for loader in loaders:
        if loader.dataset.type == "ImageNet":  # two classes here, not 1000
            loader.dataset.metainfo = dict(classes=["china", "flower"])
        dataset = DATASETS.build(loader.dataset)
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        paths.append({Path(info["img_path"]) for info in infos})
    assert paths[0] == paths[1]
    assert len(paths[0]) == 24
    assert not paths[0] & paths[2]
