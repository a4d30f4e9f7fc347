import pytest
import torch
from helpers.tiny import tiny_config
from mmpretrain.registry import MODELS

from snclr_mm.evaluation.features import pool_features
from snclr_mm.visualization import find_neighbors


def batches(images, size):
    return [{"inputs": part, "data_samples": []} for part in images.split(size)]


@pytest.mark.parametrize("algorithm", ["SNCLR", "MoCoV3"])
def test_neighbors_are_those_of_training(algorithm, tmp_path):
    cfg = tiny_config("", tmp_path)
    if algorithm == "MoCoV3":
        cfg.model.type = "MoCoV3"
        loss = dict(type="CrossEntropyLoss", loss_weight=1.0)
        cfg.model.head = dict(
            type="MoCoV3Head",
            predictor=cfg.model.head.predictor,
            loss=loss,
            temperature=0.5,
        )
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    model.eval()
    images = torch.randint(0, 256, (12, 3, 28, 28), dtype=torch.uint8)
    own = torch.tensor([7, 2])
    (queries,) = batches(images[own], 2)
    found = find_neighbors(model, batches(images, 5), queries, count=3, own=own)

    inputs = model.data_preprocessor(batches(images, 12)[0])["inputs"]
    with torch.no_grad():
        if algorithm == "SNCLR":
            keys = model.momentum_encoder(inputs)[0]
        else:
            keys = pool_features(model.backbone(inputs))
        keys = torch.nn.functional.normalize(keys, dim=1)
        for row, query in enumerate(own):
            order = (keys @ keys[query]).argsort(descending=True).tolist()
            order.remove(query)
            assert found.index[row].tolist() == order[:3]
            if algorithm == "MoCoV3":
                expected = (keys @ keys[query])[order[:3]]
                assert found.chance is None
            else:
                y_1 = model.neck(model.backbone(inputs[query][None]))[0]
                expected = model.head.attention(y_1, keys[order[:4]][None])[0, :3]
                assert found.chance == 1 / 4  # of all K, of which 3 are shown
            assert found.score[row].allclose(expected, atol=1e-5)
    far = find_neighbors(model, batches(images, 5), queries, count=3)
    assert far.index[:, 0].tolist() == own.tolist()  # nothing left out
