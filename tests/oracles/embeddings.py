"""Twins of `combined_losses.losses.embeddings`: sums over anchors, positives and negatives.

Gradients are those of the sum of the values. A sample of weight 0 is not there.
"""

import math

import numpy as np


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
