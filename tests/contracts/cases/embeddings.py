"""Cases of `combined_losses.losses.embeddings`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import embeddings

NOT_ABOVE_0 = [0, -1.0, *NOT_A_NUMBER]
# The second has a weight of 0 in the tests of weights: one label is left without a positive.
LABELS = np.array([5, 3, 5, 3])


def one_hot(labels):
    """The embeddings of a class are the same, and at right angles to those of another."""
    return np.eye(6, dtype="float32")[np.asarray(labels, int)]


def towers(labels):
    """Queries at the place of their items."""
    return 9 * np.stack([one_hot(labels)] * 2, axis=1)


def _case(loss, oracle, seed, argument, other):
    return Case(
        loss=loss,
        oracle=oracle,
        y_true=LABELS,
        y_pred=normal(4, 3, seed=seed),
        arguments={argument: other},
        refused={argument: NOT_ABOVE_0},
        perfect=one_hot,
        pairwise=True,
    )


CASES = [
    Case(
        loss=cl.losses.Contrastive,
        oracle=embeddings.contrastive,
        y_true=np.random.default_rng(1).integers(0, 2, (4, 3)).astype("float32"),
        y_pred=np.abs(normal(4, 3, seed=2)),
        arguments={"margin": 1.7},
        refused={"margin": NOT_ABOVE_0},
        perfect=lambda y_true: 1.7 * (1 - y_true),
    ),
    _case(cl.losses.ContrastivePairs, embeddings.contrastive_pairs, 3, "margin", 2.5),
    _case(cl.losses.TripletSemiHard, embeddings.triplet_semi_hard, 4, "margin", 2.5),
    _case(cl.losses.NTXent, embeddings.nt_xent, 5, "temperature", 0.3),
    _case(
        cl.losses.SupervisedContrastive, embeddings.supervised_contrastive, 6, "temperature", 0.3
    ),
    Case(
        loss=cl.losses.InBatchSoftmax,
        oracle=embeddings.in_batch_softmax,
        y_true=LABELS,
        y_pred=normal(4, 2, 3, seed=7),
        arguments={"temperature": 0.7, "log_q": [-1.0, -2.0, -3.0, -0.5, -3.5, -1.5]},
        refused={
            "temperature": NOT_ABOVE_0,
            "log_q": [[], [[0.1]], ["a"], [float("nan")], [float("inf")], 3, "a", True],
        },
        perfect=towers,
        pairwise=True,
    ),
]
