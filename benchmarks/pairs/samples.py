"""Sets of samples, beside what users write out in torch: 512 members of 16 numbers each.

The kernel and the plan of the peers are those of the formula; scikit-learn's `rbf_kernel` and POT
compute without gradients.
"""

import functools

import numpy as np
import torch

import combined_losses as cl
from pairs import Pair

MEMBERS, SIZE, LINES, ROUNDS = 512, 16, 50, 50
WIDTHS = (2.0, 4.0, 8.0)


def sets(rng):
    y_true, y_pred = rng.normal(size=(2, MEMBERS, SIZE)).astype("float32")
    return y_true, y_pred + np.float32(0.5)


def directions():
    drawn = np.random.default_rng(0).normal(size=(LINES, SIZE))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).tolist()


def mmd(y_true, y_pred):
    def kernel(x, z):
        squares = torch.cdist(x, z).square()
        return sum(torch.exp(-squares / (2 * s * s)) for s in WIDTHS).mean() / len(WIDTHS)

    return kernel(y_true, y_true) + kernel(y_pred, y_pred) - 2 * kernel(y_true, y_pred)


def sliced():
    lines = torch.tensor(directions()).T
    return lambda x, z: ((x @ lines).sort(0)[0] - (z @ lines).sort(0)[0]).square().mean()


def _transport(x, z):
    """By the envelope, as ours; unrolled it would keep every iteration."""
    cost, log = torch.cdist(x, z).square(), -float(np.log(MEMBERS))
    with torch.no_grad():
        scaled, g = cost, torch.zeros(MEMBERS)
        for _ in range(ROUNDS):
            f = -torch.logsumexp(log + g - scaled, dim=1)
            g = -torch.logsumexp(log + f[:, None] - scaled, dim=0)
        plan = torch.exp(2 * log + f[:, None] + g - scaled)
    moved = (plan * cost).sum()
    return f.mean() + g.mean() + moved - moved.detach()


def sinkhorn(y_true, y_pred):
    own = _transport(y_true, y_true) + _transport(y_pred, y_pred)
    return _transport(y_true, y_pred) - own / 2


PAIRS = {
    "MMD": Pair(sets, functools.partial(cl.losses.MMD, WIDTHS), lambda: mmd),
    "SlicedWasserstein": Pair(sets, lambda: cl.losses.SlicedWasserstein(directions()), sliced),
    "Sinkhorn": Pair(sets, functools.partial(cl.losses.Sinkhorn, 1.0, ROUNDS), lambda: sinkhorn),
}
