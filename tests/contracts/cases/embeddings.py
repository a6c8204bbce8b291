"""Cases of `combined_losses.losses.embeddings`."""

import dataclasses

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import embeddings

NOT_ABOVE_0 = [0, -1.0, *NOT_A_NUMBER]
BELOW_0 = [-1.0, *NOT_A_NUMBER]
# One for each label below 6, in three dimensions.
PROXIES = normal(6, 3, seed=20).tolist()
# The second has a weight of 0 in the tests of weights: one label is left without a positive.
LABELS = np.array([5, 3, 5, 3])


def one_hot(labels):
    """The embeddings of a class are the same, and at right angles to those of another."""
    return np.eye(6, dtype="float32")[np.asarray(labels, int)]


def towers(labels):
    """Queries at the place of their items."""
    return 9 * np.stack([one_hot(labels)] * 2, axis=1)


def _case(loss, oracle, seed, argument, other, refused=NOT_ABOVE_0):
    return _of_labels(loss, oracle, seed, {argument: other}, {argument: refused})


def _of_labels(loss, oracle, seed, arguments, refused, **more):
    return Case(
        loss=loss,
        oracle=oracle,
        y_true=LABELS,
        y_pred=normal(4, 3, seed=seed),
        arguments=arguments,
        refused=refused,
        perfect=one_hot,
        pairwise=True,
        **more,
    )


def _of_two(loss, oracle, seed, arguments, refused, **more):
    """A loss of two outputs: one of them stands for the target."""
    data = {"y_true": normal(4, 3, seed=seed), "y_pred": normal(4, 3, seed=seed + 1)}
    return Case(loss=loss, oracle=oracle, arguments=arguments, refused=refused, **data, **more)


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
    _of_labels(
        cl.losses.TripletHard,
        embeddings.triplet_hard,
        7,
        {"margin": 2.5, "mining": "all", "distance": "cosine"},
        {
            "margin": [each for each in NOT_ABOVE_0 if each is not None],
            "mining": ["hardest", None, True],
            "distance": ["l2", None, True],
        },
    ),
    _case(cl.losses.LiftedStructure, embeddings.lifted_structure, 8, "margin", 2.5, BELOW_0),
    _of_labels(
        cl.losses.MultiSimilarity,
        embeddings.multi_similarity,
        9,
        {"alpha": 1.0, "beta": 10.0, "base": 0.3, "epsilon": 0.2},
        {
            "alpha": NOT_ABOVE_0,
            "beta": NOT_ABOVE_0,
            "base": NOT_A_NUMBER,
            "epsilon": [each for each in BELOW_0 if each is not None],
        },
    ),
    _case(cl.losses.NPairs, embeddings.n_pairs, 10, "l2", 0.3, BELOW_0),
    Case(
        loss=cl.losses.ProxyAnchor,
        oracle=embeddings.proxy_anchor,
        y_true=LABELS,
        y_pred=normal(4, 3, seed=11),
        required={"num_classes": 6, "dim": 3, "proxies": PROXIES},
        arguments={"margin": 0.3, "scale": 4.0},
        refused={
            "num_classes": [1, 0, 2.5, *NOT_A_NUMBER],
            "dim": [0, 1.5, *NOT_A_NUMBER],
            "margin": NOT_A_NUMBER,
            "scale": NOT_ABOVE_0,
            "proxies": [[], [[0.0, 1.0]], "a", 1.0],
        },
        perfect=lambda y_true: np.float32(PROXIES)[np.asarray(y_true, int)],
        of_batch=True,
        steep=True,
    ),
    _of_two(
        cl.losses.PairedContrastive,
        embeddings.paired_contrastive,
        12,
        {"temperature": 0.3},
        {"temperature": NOT_ABOVE_0, "learn_temperature": [1, "yes", None]},
        fixed=("learn_temperature",),
        pairwise=True,
    ),
    _of_two(
        cl.losses.BarlowTwins,
        embeddings.barlow_twins,
        14,
        {"off_diagonal": 0.3, "epsilon": 0.1},
        {"off_diagonal": BELOW_0, "epsilon": NOT_ABOVE_0},
        of_batch=True,
    ),
    _of_two(
        cl.losses.VICReg,
        embeddings.vicreg,
        16,
        {
            "invariance": 2.0,
            "variance": 3.0,
            "covariance": 0.5,
            "target_std": 1.5,
            "epsilon": 0.1,
        },
        {
            "invariance": BELOW_0,
            "variance": BELOW_0,
            "covariance": BELOW_0,
            "target_std": NOT_ABOVE_0,
            "epsilon": NOT_ABOVE_0,
        },
        of_batch=True,
        pairwise=True,
    ),
]

# Other ways to choose triplets, and to measure them.
[_HARD] = [case for case in CASES if case.loss is cl.losses.TripletHard]
VARIANTS = [
    dataclasses.replace(
        _HARD, label=" ".join(map(str, arguments.values())), arguments=arguments, refused={}
    )
    for arguments in (
        {"margin": 0.7, "distance": "squared"},
        {"margin": None, "mining": "semihard"},
    )
]
