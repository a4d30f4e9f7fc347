from helpers.tiny import REPOSITORY
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain import FeatureExtractor
from mmpretrain.registry import DATASETS
from torch.testing import assert_close

from snclr_mm.evaluation.features import batch_features, pool_features


def test_config_of_unlabeled_images(image_folder):
    """MMPretrain's own inferencer takes its pipeline from the test dataset."""
    cfg = Config.fromfile(REPOSITORY / "configs/snclr_r18_1xb128_image-folder.py")
    cfg.merge_from_dict(
        {
            "model.backbone": dict(depth=18, stem_channels=8, base_channels=8),
            "model.neck": dict(in_channels=64, hid_channels=16),
            "model.head.predictor.hid_channels": 16,
            "model.head.queue.length": 64,
            "test_dataloader.dataset.data_root": str(image_folder),
        }
    )
    extractor = FeatureExtractor(cfg, pretrained=False, device="cpu")
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    rows = (0, len(dataset) - 1)
    files = [dataset.get_data_info(row)["img_path"] for row in rows]
    features = [pool_features(maps[None]) for (maps,) in extractor(files, batch_size=2)]
    batch = default_collate([dataset[row] for row in rows])
    expected = batch_features(extractor.model, batch)[0]
    assert expected.shape == (2, 64)
    for one, other in zip(features, expected, strict=True):
        assert_close(one[0], other)
    assert not expected[0].allclose(expected[1], rtol=0.01)
