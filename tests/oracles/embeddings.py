"""Twins of `combined_losses.losses.embeddings`: sums over anchors, positives and negatives.

Gradients are those of the sum of the values. A sample of weight 0 is not there.
"""

import math

import numpy as np

from tests.oracles.distributions import by_differences


def contrastive(y_true, y_pred, margin=1.0):
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    elements = y_pred.shape[-1]
    for index in np.ndindex(*y_pred.shape):
        y, p = float(y_true[index]), float(y_pred[index])
        short = max(margin - p, 0.0)
        values[index[:-1]] += (y * p**2 + (1 - y) * short**2) / elements
        gradient[index] = (2 * y * p - 2 * (1 - y) * short) / elements
    return values, gradient


class _Batch:
    """The samples that are there, their labels, and places for values and gradient."""

    def __init__(self, y_true, y_pred, sample_weight):
        labels, self.x = np.reshape(y_true, -1), np.float64(y_pred)
        weight = np.ones(len(self.x)) if sample_weight is None else np.asarray(sample_weight)
        self.anchors = [a for a in range(len(self.x)) if weight[a] != 0]
        others = {a: [j for j in self.anchors if j != a] for a in self.anchors}
        self.others = others
        self.positives = {a: [j for j in others[a] if labels[j] == labels[a]] for a in others}
        self.negatives = {a: [j for j in others[a] if labels[j] != labels[a]] for a in others}
        self.values, self.gradient = np.zeros(len(self.x)), np.zeros(self.x.shape)

    def distance(self, a, j):
        return math.sqrt(math.fsum((self.x[a] - self.x[j]) ** 2))

    def add_distance(self, a, j, slope):
        """To the gradient, that of `slope` times the distance; 0 at 0."""
        distance = self.distance(a, j)
        if distance > 0:
            direction = slope * (self.x[a] - self.x[j]) / distance
            self.gradient[a] += direction
            self.gradient[j] -= direction

    def add_cosine(self, a, j, slope):
        """The same of the cosine, of lengths of at least 1e-6."""
        for of, to in ((a, j), (j, a)):
            length = np.linalg.norm(self.x[of])
            unit, floored = self.unit(of), max(length, 1e-6)
            along = np.dot(self.unit(to), unit) * unit if length > 1e-6 else 0.0
            self.gradient[of] += slope * (self.unit(to) - along) / floored

    def unit(self, a):
        return self.x[a] / max(np.linalg.norm(self.x[a]), 1e-6)

    def scaled(self, counted):
        factor = len(self.anchors) / counted if counted else 0.0
        return self.values * factor, self.gradient * factor


def contrastive_pairs(y_true, y_pred, margin=1.0, sample_weight=None):
    batch = _Batch(y_true, y_pred, sample_weight)
    for a in batch.anchors:
        share = 1 / max(len(batch.others[a]), 1)
        for j in batch.others[a]:
            distance = batch.distance(a, j)
            same = j in batch.positives[a]
            term = distance if same else max(margin - distance, 0.0)
            batch.values[a] += share * term**2
            batch.add_distance(a, j, share * 2 * term * (1 if same else -1))
    return batch.values, batch.gradient


def triplet_semi_hard(y_true, y_pred, margin=1.0, sample_weight=None):
    batch = _Batch(y_true, y_pred, sample_weight)
    counted = 0
    for a in batch.anchors:
        for q in batch.positives[a] if batch.negatives[a] else []:
            counted += 1
            to_q = batch.distance(a, q)
            to_negatives = {batch.distance(a, n): n for n in batch.negatives[a]}
            beyond = [distance for distance in to_negatives if distance > to_q]
            to_n = min(beyond) if beyond else max(to_negatives)
            if margin + to_q - to_n > 0:
                batch.values[a] += margin + to_q - to_n
                batch.add_distance(a, q, 1.0)
                batch.add_distance(a, to_negatives[to_n], -1.0)
    return batch.scaled(counted)


def _log_of_sum(logits):
    """The logarithm of the sum of exponentials, and its slopes."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(powers)
    return highest + math.log(total), [power / total for power in powers]


def nt_xent(y_true, y_pred, temperature=0.5, sample_weight=None):
    batch = _Batch(y_true, y_pred, sample_weight)
    for a in batch.anchors:
        share = 1 / max(len(batch.positives[a]), 1)
        for q in batch.positives[a]:
            among = [q, *batch.negatives[a]]
            logits = [float(batch.unit(a) @ batch.unit(j)) / temperature for j in among]
            log, slopes = _log_of_sum(logits)
            batch.values[a] += share * (log - logits[0])
            slopes[0] -= 1
            for j, slope in zip(among, slopes, strict=True):
                batch.add_cosine(a, j, share * slope / temperature)
    return batch.scaled(sum(1 for a in batch.anchors if batch.positives[a]))


def supervised_contrastive(y_true, y_pred, temperature=0.1, sample_weight=None):
    batch = _Batch(y_true, y_pred, sample_weight)
    for a in batch.anchors:
        positives = batch.positives[a]
        if not positives:
            continue
        logits = {j: float(batch.unit(a) @ batch.unit(j)) / temperature for j in batch.others[a]}
        log, slopes = _log_of_sum(list(logits.values()))
        batch.values[a] = log - math.fsum(logits[q] for q in positives) / len(positives)
        for j, slope in zip(logits, slopes, strict=True):
            slope -= 1 / len(positives) if j in positives else 0.0
            batch.add_cosine(a, j, slope / temperature)
    return batch.scaled(sum(1 for a in batch.anchors if batch.positives[a]))


def in_batch_softmax(y_true, y_pred, temperature=1.0, log_q=None, sample_weight=None):
    """The queries and items of `y_pred`, `(batch, 2, D)`."""
    pairs = np.float64(y_pred)
    batch = _Batch(y_true, pairs.reshape(len(pairs), -1), sample_weight)
    ids, gradient = np.reshape(y_true, -1).astype(int), np.zeros(pairs.shape)
    for a in batch.anchors:
        rivals = [a, *batch.negatives[a]]
        scores = np.array([pairs[a, 0] @ pairs[j, 1] / temperature for j in rivals])
        if log_q is not None:
            scores -= np.array(log_q)[ids[rivals]]
        shares = np.exp(scores - scores.max())
        batch.values[a] = scores.max() + math.log(math.fsum(shares)) - scores[0]
        slopes = (shares / shares.sum() - (np.arange(len(rivals)) == 0)) / temperature
        for j, slope in zip(rivals, slopes, strict=True):
            gradient[a, 0] += slope * pairs[j, 1]
            gradient[j, 1] += slope * pairs[a, 0]
    return batch.values, gradient


# From here on gradients are central differences in float64, of loops that have the values.


def _of_anchors(terms, y_true, y_pred, sample_weight):
    """The values of `terms(batch, a)`, which gives the sum of an anchor and its number of terms.

    Their weighted mean is the weighted mean of all terms.
    """

    def values_of(y_pred):
        batch = _Batch(y_true, y_pred, sample_weight)
        weight = np.ones(len(batch.x)) if sample_weight is None else np.float64(sample_weight)
        found = {a: terms(batch, a) for a in batch.anchors}
        for a, (total, _) in found.items():
            batch.values[a] = total
        counted = sum(weight[a] * number for a, (_, number) in found.items())
        return batch.values * (weight.sum() / counted if counted else 0.0)

    return by_differences(values_of, y_pred)


def _cosine(batch, a, j):
    return float(batch.unit(a) @ batch.unit(j))


def triplet_hard(
    y_true, y_pred, margin=1.0, mining="hard", distance="euclidean", sample_weight=None
):
    def far(batch, a, j):
        if distance == "cosine":
            return 1 - _cosine(batch, a, j)
        return batch.distance(a, j) ** (2 if distance == "squared" else 1)

    def term(difference):
        soft = math.log1p(math.exp(difference))
        return soft if margin is None else max(margin + difference, 0.0)

    def terms(batch, a):
        to_q = [far(batch, a, q) for q in batch.positives[a]]
        to_n = [far(batch, a, n) for n in batch.negatives[a]]
        if not to_q or not to_n:
            return 0.0, 0
        if mining == "hard":
            return term(max(to_q) - min(to_n)), 1
        if mining == "all":
            return sum(term(q - n) for q in to_q for n in to_n), len(to_q) * len(to_n)
        chosen = [min([n for n in to_n if n > q], default=max(to_n)) for q in to_q]
        return sum(term(q - n) for q, n in zip(to_q, chosen, strict=True)), len(to_q)

    return _of_anchors(terms, y_true, y_pred, sample_weight)


def lifted_structure(y_true, y_pred, margin=1.0, sample_weight=None):
    def terms(batch, a):
        total, number = 0.0, 0
        for q in batch.positives[a] if batch.negatives[a] else []:
            exponents = [margin - batch.distance(a, n) for n in batch.negatives[a]]
            exponents += [margin - batch.distance(q, n) for n in batch.negatives[q]]
            total += max(batch.distance(a, q) + _log_of_sum(exponents)[0], 0.0) ** 2 / 2
            number += 1
        return total, number

    return _of_anchors(terms, y_true, y_pred, sample_weight)


def multi_similarity(
    y_true, y_pred, alpha=2.0, beta=50.0, base=0.5, epsilon=None, sample_weight=None
):
    def values_of(y_pred):
        batch = _Batch(y_true, y_pred, sample_weight)
        for a in batch.anchors:
            of_q = [_cosine(batch, a, q) for q in batch.positives[a]]
            of_n = [_cosine(batch, a, n) for n in batch.negatives[a]]
            if epsilon is not None:
                near, far = max(of_n, default=-math.inf), min(of_q, default=math.inf)
                of_q = [s for s in of_q if s - epsilon < near]
                of_n = [s for s in of_n if s + epsilon > far]
            pull = 1 + sum(math.exp(-alpha * (s - base)) for s in of_q)
            push = 1 + sum(math.exp(beta * (s - base)) for s in of_n)
            batch.values[a] = math.log(pull) / alpha + math.log(push) / beta
        return batch.values

    return by_differences(values_of, y_pred)


def n_pairs(y_true, y_pred, l2=0.0, sample_weight=None):
    def terms(batch, a):
        if not batch.positives[a]:
            return 0.0, 0
        found = []
        for q in batch.positives[a]:
            logits = [float(batch.x[a] @ batch.x[j]) for j in (q, *batch.negatives[a])]
            found.append(_log_of_sum(logits)[0] - logits[0])
        return np.mean(found) + l2 * float(batch.x[a] @ batch.x[a]), 1

    return _of_anchors(terms, y_true, y_pred, sample_weight)


def proxy_anchor(
    y_true, y_pred, num_classes, dim, margin=0.1, scale=32.0, proxies=None, sample_weight=None
):
    labels, centres = np.reshape(y_true, -1), np.float64(proxies)
    assert centres.shape == (num_classes, dim)
    weight = np.ones(len(labels)) if sample_weight is None else np.float64(sample_weight)
    present = {label for label, w in zip(labels, weight, strict=True) if w}

    def values_of(y_pred):
        def cosine(i, c):
            lengths = [max(np.linalg.norm(v), 1e-6) for v in (y_pred[i], centres[c])]
            return float(y_pred[i] @ centres[c]) / np.prod(lengths)

        pulls, pushes = [], []
        for c in range(num_classes):
            pull = [weight[i] * math.exp(-scale * (cosine(i, c) - margin)) for i in of(c, True)]
            push = [weight[i] * math.exp(scale * (cosine(i, c) + margin)) for i in of(c, False)]
            pulls.append(math.log1p(sum(pull)))
            pushes.append(math.log1p(sum(push)))
        total = sum(pulls) / max(len(present), 1) + sum(pushes) / num_classes
        return np.full(len(labels), total)

    def of(c, same):
        return [i for i, label in enumerate(labels) if (label == c) == same]

    return by_differences(values_of, np.float64(y_pred))


def paired_contrastive(
    y_true, y_pred, temperature=0.07, learn_temperature=False, sample_weight=None
):
    count = len(y_true)
    weight = np.ones(count) if sample_weight is None else np.float64(sample_weight)
    used = np.flatnonzero(weight)

    def unit(x):
        x = np.float64(x)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)

    def values_of(y_pred):
        logits = unit(y_true) @ unit(y_pred).T / temperature
        values = np.zeros(count)
        for i in used:
            both = [_log_of_sum([*each[used]])[0] for each in (logits[i], logits[:, i])]
            values[i] = sum(both) / 2 - logits[i, i]
        return values

    return by_differences(values_of, y_pred)


def _shares(y_true, sample_weight):
    weight = np.ones(len(y_true)) if sample_weight is None else np.float64(sample_weight)
    return (weight / weight.sum() if weight.any() else weight)[:, None]


def barlow_twins(y_true, y_pred, off_diagonal=5e-3, epsilon=1e-5, sample_weight=None):
    a = _shares(y_true, sample_weight)

    def standard(x):
        centred = np.float64(x) - np.sum(a * x, axis=0)
        return centred / np.sqrt(np.sum(a * centred**2, axis=0) + epsilon)

    def values_of(y_pred):
        correlations = (a * standard(y_true)).T @ standard(y_pred)
        total = 0.0
        for i, j in np.ndindex(*correlations.shape):
            c = correlations[i, j]
            total += (1 - c) ** 2 if i == j else off_diagonal * c**2
        return np.full(len(y_pred), total)

    return by_differences(values_of, y_pred)


def vicreg(
    y_true,
    y_pred,
    invariance=25.0,
    variance=25.0,
    covariance=1.0,
    target_std=1.0,
    epsilon=1e-4,
    sample_weight=None,
):
    a = _shares(y_true, sample_weight)
    unbiased = 1 - np.sum(a**2)

    def of_view(x):
        centred = np.float64(x) - np.sum(a * x, axis=0)
        found = (a * centred).T @ centred / (unbiased if unbiased > 1e-9 else math.inf)
        short = np.maximum(target_std - np.sqrt(np.diag(found) + epsilon), 0)
        beside = np.sum(found**2) - np.sum(np.diag(found) ** 2)
        return variance * np.mean(short) / 2 + covariance * beside / x.shape[1]

    def values_of(y_pred):
        errors = np.sum(a * (np.float64(y_true) - y_pred) ** 2) / y_pred.shape[1]
        total = invariance * errors + of_view(y_true) + of_view(y_pred)
        return np.full(len(y_pred), total)

    return by_differences(values_of, y_pred)
