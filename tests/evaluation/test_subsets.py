import numpy as np
import torch

from snclr_mm.evaluation.subsets import count_classes, draw_per_class


def test_draw_per_class():
    labels = torch.tensor([7, 2, 7, 2, 7, 5, 7])
    classes, counts = count_classes(labels)
    assert classes.tolist() == [2, 5, 7] and counts.tolist() == [2, 1, 4]
    asked = np.array([1, 0, 3])
    rows = draw_per_class(labels, asked, seed=0)
    assert len(set(rows.tolist())) == 4
    assert labels[rows].tolist() == [2, 7, 7, 7]
    assert draw_per_class(labels, asked, seed=0).tolist() == rows.tolist()
    drawn = {tuple(draw_per_class(labels, asked, seed)) for seed in range(20)}
    assert len(drawn) > 5
