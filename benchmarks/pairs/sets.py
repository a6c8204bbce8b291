"""Sets and sources in any order, beside what is written by hand: torchmetrics is not installed.

The peer of `Matched` is the matcher of DETR (facebookresearch/detr, models/matcher.py, Apache 2.0):
`torch.cdist`, scipy for each sample, and a loss of the pairs. That of `Permuted` is what
`permutation_invariant_training` of torchmetrics computes: all pairs of sources, then all orders.
"""

import itertools

import torch
from scipy.optimize import linear_sum_assignment

import combined_losses as cl
from pairs import Pair


def points(batch, rows, others):
    def data(rng):
        y_true, y_pred = rng.random((batch, rows, 4)), rng.random((batch, others, 4))
        return y_true.astype("float32"), y_pred.astype("float32")

    return data


def matched(y_true, y_pred):
    """The mean absolute error of the pairs."""
    with torch.no_grad():
        costs = torch.cdist(y_true, y_pred, p=1)
        pairs = [linear_sum_assignment(own) for own in costs.cpu()]
    batch = torch.cat([torch.full((len(i),), n) for n, (i, _) in enumerate(pairs)])
    rows, columns = (torch.cat([torch.as_tensor(p[k]) for p in pairs]) for k in (0, 1))
    error = (y_true[batch, rows] - y_pred[batch, columns]).abs().mean(dim=-1)
    return error.sum() / (len(y_true) * max(y_true.shape[1], y_pred.shape[1]))


def signals(sources):
    def data(rng):
        shape = (16, 4000, sources)
        y_true, y_pred = rng.normal(size=shape), rng.normal(size=shape)
        return y_true.astype("float32"), y_pred.astype("float32")

    return data


def permuted(y_true, y_pred):
    sources = y_true.shape[-1]
    costs = torch.stack(
        [
            torch.stack([((y_true[..., i] - y_pred[..., j]) ** 2).mean(-1) for j in range(sources)])
            for i in range(sources)
        ]
    )
    orders = torch.tensor(list(itertools.permutations(range(sources))))
    totals = torch.stack([costs[torch.arange(sources), order].mean(0) for order in orders])
    return totals.min(dim=0).values.mean()


PAIRS = {
    f"Matched, {batch} x {rows} of {others}": Pair(
        points(batch, rows, others),
        lambda: cl.wrappers.Matched("mae", unmatched=0.0),
        lambda: matched,
    )
    for batch, rows, others in ((16, 10, 100), (64, 10, 10))
} | {
    f"Permuted, {sources} sources": Pair(
        signals(sources), lambda: cl.wrappers.Permuted("mse"), lambda: permuted
    )
    for sources in (2, 4)
}
