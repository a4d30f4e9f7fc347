"""MMPretrain's inferencer for images like a given one, on a pretrained backbone."""

import cv2
import pytest
import torch
from helpers.tiny import REPOSITORY
from mmengine.config import Config
from mmpretrain import ImageRetrievalInferencer, get_model
from mmpretrain.registry import MODELS

from snclr_mm.cli import check_pretrained, set_pretrained

CONFIG = REPOSITORY / "configs/benchmarks/retrieval/image-to-image_r50_in1k.py"


def feature(backbone, path):
    """The config's pipeline for a square picture, plainly."""
    picture = cv2.resize(cv2.imread(str(path)), (256, 256))[16:240, 16:240, ::-1]
    mean = torch.tensor([123.675, 116.28, 103.53])
    std = torch.tensor([58.395, 57.12, 57.375])
    picture = (torch.from_numpy(picture.copy()) - mean) / std
    return backbone(picture.permute(2, 0, 1)[None])[-1].mean(dim=(2, 3))


@torch.no_grad()
def test_inferencer(image_folder, tmp_path):
    backbone = MODELS.build(dict(type="ResNet", depth=50))
    backbone.init_weights()
    for module in backbone.modules():  # else the features of all pictures are alike
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    paths = sorted(str(path) for path in image_folder.glob("*/1[0-2].*"))
    backbone.train()
    for path in paths:
        feature(backbone, path)
    backbone.eval()
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "pretrained.pth")

    cfg = Config.fromfile(CONFIG)
    set_pretrained(cfg.model, str(tmp_path / "pretrained.pth"))
    model = get_model(cfg)
    check_pretrained(model)
    inferencer = ImageRetrievalInferencer(model, prototype=paths)
    (matches,) = inferencer(paths[1], topk=len(paths))

    features = torch.cat([feature(backbone, path) for path in paths])
    expected = torch.cosine_similarity(features[1:2], features)
    scores, order = expected.sort(descending=True)
    assert [match["sample_idx"] for match in matches] == order.tolist()
    assert matches[0]["sample"]["img_path"] == paths[1]
    found = torch.stack([match["match_score"] for match in matches])
    torch.testing.assert_close(found, scores, rtol=1e-3, atol=1e-3)
    assert scores[0] == pytest.approx(1) and scores[-1] < 0.99
