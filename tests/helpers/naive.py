"""The paper's formulas as plain loops over images, in double precision."""

import math

import torch


def unit(vector):
    return [x / math.sqrt(sum(v * v for v in vector)) for x in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_loss(
    query, key, index, candidates, positiveness, temperature, objective, w_0=1.0,
    all_key=None, all_index=None,
):  # fmt: skip
    """Mean loss over ``query``'s images; negatives from ``all_key`` and ``all_index``.

    Loops over images and neighbors; every neighbor of every image is scored anew.
    """
    all_key = key if all_key is None else all_key
    all_index = index if all_index is None else all_index
    candidates = candidates.double().tolist()
    total = 0.0
    for n, z in enumerate(query.double().tolist()):
        z = unit(z)

        def logits(y, rows, z=z):
            keys = [unit(y)] + [candidates[row] for row in rows]
            return [dot(z, k) / temperature for k in keys]

        denominator = sum(
            math.exp(value)
            for y, rows in zip(
                all_key.double().tolist(), all_index.tolist(), strict=True
            )
            for value in logits(y, rows)
        )
        own = logits(key[n].double().tolist(), index[n].tolist())
        weights = [w_0, *positiveness[n].double().tolist()]
        pairs = list(zip(weights, own, strict=True))
        if objective == "log_of_sum":
            total -= math.log(sum(w * math.exp(v) for w, v in pairs) / denominator)
        else:
            total -= sum(w * math.log(math.exp(v) / denominator) for w, v in pairs)
    return torch.tensor(total / len(query), dtype=torch.float64)
