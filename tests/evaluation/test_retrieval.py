import math

import numpy as np
import pytest
import torch
from mmpretrain.evaluation import RetrievalAveragePrecision, RetrievalRecall
from sklearn.metrics import average_precision_score

from snclr_mm.evaluation.protocols import ProtocolSettings, run_protocol
from snclr_mm.evaluation.retrieval import retrieval_metrics


def naive(queries, gallery, query_labels, gallery_labels, ks):
    """One query and one image at a time, in double precision."""
    recall, precision, reciprocal = {k: [] for k in ks}, [], []
    for query, label in zip(queries, query_labels, strict=True):
        if label not in gallery_labels:
            continue

        def cosine(j, query=query):
            dot = sum(a * b for a, b in zip(query, gallery[j], strict=True))
            return dot / math.hypot(*query) / math.hypot(*gallery[j])

        order = sorted(range(len(gallery)), key=cosine, reverse=True)
        hits, seen = [], 0
        for rank, j in enumerate(order, 1):
            if gallery_labels[j] == label:
                seen += 1
                hits.append((rank, seen / rank))
        for k in ks:
            recall[k].append(any(rank <= k for rank, _ in hits))
        precision.append(sum(p for _, p in hits) / len(hits))
        reciprocal.append(1 / hits[0][0])
    result = {f"recall@{k}": 100 * np.mean(v) for k, v in recall.items()}
    return result | {
        "map": 100 * np.mean(precision),
        "mrr": 100 * np.mean(reciprocal),
        "queries": len(precision),
    }


@pytest.fixture(params=[(17, 40, 5, 3), (9, 4, 3, 2), (30, 60, 3, 12)])
def data(request):
    m, n, width, classes = request.param
    labels = torch.randint(0, classes, (m,)), torch.randint(0, classes, (n,))
    labels[0][0] = classes + 7  # not in the gallery
    return torch.randn(m, width), 3 * torch.randn(n, width), *labels


def test_against_a_plain_loop(data):
    expected = naive(*(part.tolist() for part in data), ks=(1, 3))
    found = retrieval_metrics(*data, recall_at=(1, 3, 10**6), batch_size=4)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4), name
    assert found["queries"] < len(data[0])


def test_against_libraries(data):
    queries, gallery, query_labels, gallery_labels = data
    known = torch.isin(query_labels, gallery_labels)
    queries, query_labels = queries[known], query_labels[known]
    similarity = torch.cosine_similarity(queries[:, None], gallery[None], dim=2)
    relevant = query_labels[:, None] == gallery_labels
    found = retrieval_metrics(queries, gallery, query_labels, gallery_labels, (2,))
    of_each = [
        average_precision_score(r, s) for r, s in zip(relevant, similarity, strict=True)
    ]
    assert found["map"] == pytest.approx(100 * np.mean(of_each), abs=1e-4)
    target = [row.nonzero()[:, 0].tolist() for row in relevant]
    arguments = dict(pred=similarity, target=target, target_indices=True, topk=2)
    (recall,) = RetrievalRecall.calculate(**arguments)
    assert found["recall@2"] == pytest.approx(recall.item())
    arguments["topk"] = len(gallery)
    precision = RetrievalAveragePrecision.calculate(**arguments)
    assert found["map"] == pytest.approx(float(precision), abs=1e-4)


def test_perfect_and_protocol():
    features = torch.eye(6).repeat(2, 1)
    labels = torch.arange(6).repeat(2)
    found = run_protocol(
        "retrieval", (features, labels), (features, labels), ProtocolSettings()
    )
    values = {row["name"]: row["value"] for row in found["table"]}
    assert values == {
        f"retrieval-{name}": 100 for name in ("recall@1", "recall@5", "recall@10")
    } | {"retrieval-map": 100, "retrieval-mrr": 100}
    assert found["table"][0]["setting"] == "12 queries in 12"


def test_bad_input():
    eye, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match=r"none of the 3 queries .* gallery of 3"):
        retrieval_metrics(eye, eye, labels, labels + 3)
    with pytest.raises(ValueError, match="the queries are not finite"):
        retrieval_metrics(eye * torch.nan, eye, labels, labels)
