import pytest
import torch

from snclr_mm.evaluation.protocols import (
    MULTI_LABEL,
    PROTOCOLS,
    ProtocolSettings,
    run_protocol,
    summarize,
)

SETTINGS = ProtocolSettings(knn_k=[5], per_class=[10], draws=2, percent=[50], shots=[4])


def blobs(distance, n=60):
    """Features of three classes whose centers are ``distance`` apart, and labels."""
    labels = torch.arange(n) % 3
    return distance * torch.eye(3).repeat(1, 4)[labels] + torch.randn(n, 12), labels


# Retrieval has several figures, and a test of its own.
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "retrieval"])
def test_percentages(name):
    """All of three classes far apart, a third of three that are one."""
    far = run_protocol(name, blobs(20.0), blobs(20.0), SETTINGS)
    assert list(summarize({name: far}).values()) == [100.0]
    near = run_protocol(name, blobs(0.0), blobs(0.0, 600), SETTINGS)
    (value,) = summarize({name: near}).values()
    assert 25 < value < 45
    (row,) = near["table"]
    assert value == round(row["value"], 2)
    assert (row["std"] is None) == (name not in ("few-shot", "svm-low-shot"))


def test_several_labels_per_image():
    features, labels = blobs(20.0)
    targets = torch.nn.functional.one_hot(labels)
    data = features, targets
    for name in MULTI_LABEL:
        assert summarize({name: run_protocol(name, data, data, SETTINGS)})


def test_summary_has_every_row():
    settings = ProtocolSettings(per_class=[1, 5], draws=1)
    data = blobs(20.0)
    results = {
        name: run_protocol(name, data, data, settings) for name in ("knn", "few-shot")
    }
    assert list(summarize(results)) == ["knn", "few-shot-1", "few-shot-5"]
    # Of its own accord k is at most the number of images.
    assert [cell["k"] for cell in results["knn"]["grid"]] == [1, 10, 20]
