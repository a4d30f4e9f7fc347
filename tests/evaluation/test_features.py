import pytest
import torch
from helpers.models import RESNET, neck, soft_head
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from snclr_mm.evaluation import extract_features, pool_features


def test_pool_features():
    maps = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(pool_features((None, maps)), maps.mean((2, 3)))
    token = torch.randn(2, 3).bfloat16()
    assert torch.equal(pool_features(token), token.float())
    with pytest.raises(ValueError, match=r"\[2, 7, 3\].*model\.backbone\.out_type"):
        pool_features(torch.randn(2, 7, 3))


class Model(nn.Module):
    def data_preprocessor(self, batch, training):
        assert not training
        return batch

    def extract_feat(self, inputs):
        assert not self.training
        return (inputs * 2,)


def batches(labeled=True, spoilt=()):
    for start in (0, 4):
        samples = [DataSample() for _ in range(4)]
        for i, sample in enumerate(samples):
            if labeled:
                sample.set_gt_label(start + i)
        inputs = torch.arange(start, start + 4).float()[:, None]
        for i, value in spoilt:
            inputs[inputs == i] = value
        yield {"inputs": inputs, "data_samples": samples}


def test_extract_features():
    model = Model().train()
    features, labels = extract_features(model, batches())
    assert features[:, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert labels.tolist() == list(range(8))
    assert model.training


def test_samples_are_not_sent_to_the_device(monkeypatch):
    """One by one it takes longer than the network; only a batch's labels go."""
    sent = []
    monkeypatch.setattr(DataSample, "to", lambda *args: sent.append(args))
    model = MODELS.build(
        dict(
            type="SNCLR",
            backbone=RESNET,
            neck=neck(),
            head=soft_head(),
            data_preprocessor=dict(type="SelfSupDataPreprocessor"),
        )
    )
    images = torch.zeros(3, 3, 16, 16)
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    batch = {"inputs": images, "data_samples": samples}
    assert extract_features(model, [batch])[1].tolist() == [0, 1, 2]
    assert not sent


def test_multi_label_targets():
    sets = [([0, 2], [1]), ([], [2, 0]), ([1], None), ([2], [2])]
    samples = []
    for labels, difficult in sets:
        sample = DataSample().set_gt_label(labels)
        if difficult is not None:
            sample.set_metainfo({"gt_label_difficult": difficult})
        samples.append(sample)
    batch = {"inputs": torch.zeros(4, 1), "data_samples": samples}
    _, targets = extract_features(Model(), [batch, batch], num_classes=3)
    expected = [[1, -1, 1], [-1, 0, -1], [0, 1, 0], [0, 0, 1]]
    assert targets.tolist() == expected * 2


def test_unlabeled_images():
    with pytest.raises(ValueError, match="the bank has images without labels"):
        extract_features(Model(), batches(labeled=False), "the bank")
    with pytest.raises(ValueError, match="the bank is empty"):
        extract_features(Model(), [], "the bank")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite(value):
    spoilt = [(2, value), (7, value)]
    with pytest.raises(ValueError, match="2 of 8 features of the bank are not finite"):
        extract_features(Model(), batches(spoilt=spoilt), "the bank")
