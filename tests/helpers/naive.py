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


def naive_mean_shift(query, key, neighbors, mix=None):
    """Mean squared distance of each query to its key and neighbors, one by one."""
    total = 0.0
    for z, y, rows in zip(
        query.tolist(), key.tolist(), neighbors.tolist(), strict=True
    ):
        z, y = unit(z), unit(y)
        distances = [2 - 2 * dot(z, y)]
        if mix is None:
            distances += [2 - 2 * dot(z, row) for row in rows]
            total += sum(distances) / len(distances)
            continue
        mixed = [
            [mix * a + (1 - mix) * b for a, b in zip(row, y, strict=True)]
            for row in rows or [y]
        ]
        total += distances[0] + sum(2 - 2 * dot(z, m) for m in mixed) / len(mixed)
    return torch.tensor(total / len(query), dtype=torch.float64)


def softmax(logits):
    total = sum(map(math.exp, logits))
    return [math.exp(value) / total for value in logits]


def naive_relational(query, key, candidates, temperature, target, own_weight=None):
    """Mean cross-entropy of two softmaxes over all candidates, entry by entry."""
    rows, total = candidates.tolist(), 0.0
    for z, y in zip(query.tolist(), key.tolist(), strict=True):
        z, y = unit(z), unit(y)
        labels = softmax([dot(y, row) / target for row in rows])
        entries = rows
        if own_weight is not None:
            labels = [own_weight, *((1 - own_weight) * label for label in labels)]
            entries = [y, *rows]
        p = softmax([dot(z, row) / temperature for row in entries])
        total -= sum(s * math.log(q) for s, q in zip(labels, p, strict=True))
    return torch.tensor(total / len(query), dtype=torch.float64)


def naive_nearest_neighbor(query, neighbors, temperature, symmetric=False):
    """Mean loss over images and neighbors, each softmax written out."""
    queries = [unit(z) for z in query.tolist()]
    neighbors = [[unit(row) for row in rows] for rows in neighbors.tolist()]
    everyone = [row for rows in neighbors for row in rows]

    def log_share(own, others):
        total = sum(math.exp(value / temperature) for value in others)
        return own / temperature - math.log(total)

    terms = []
    for z, rows in zip(queries, neighbors, strict=True):
        for row in rows:
            own = dot(z, row)
            term = log_share(own, [dot(z, other) for other in everyone])
            if symmetric:
                column = log_share(own, [dot(other, row) for other in queries])
                term = (term + column) / 2
            terms.append(-term)
    return torch.tensor(sum(terms) / len(terms), dtype=torch.float64)
