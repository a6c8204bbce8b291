"""Cases of `combined_losses.losses.classification`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case
from tests.oracles import classification

NOT_WEIGHTS = [2.0, "1", [], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [[1.0]], [True]]
NOT_A_FLAG = [0, 1, None, "yes"]
NOT_SMOOTH = [-0.1, 1.0, 2, *NOT_A_NUMBER]
CLASSES = 4


def probabilities(*shape, seed):
    """Away from 0 and 1, of sum 1 over the last axis where that is of length 2 or more."""
    shares = np.random.default_rng(seed).uniform(0.1, 0.9, shape)
    return (shares / (shares.sum(-1, keepdims=True) if shape[-1] > 1 else 1)).astype("float32")


def qualities(*shape, seed):
    """Half of them 0: no object."""
    return np.maximum(np.random.default_rng(seed).uniform(-1, 1, shape), 0).astype("float32")


def labels(*shape, seed):
    return np.random.default_rng(seed).integers(0, CLASSES, shape)


def one_hot(labels):
    return np.eye(CLASSES, dtype="float32")[np.asarray(labels, int)]


CASES = [
    Case(  # off default: of soft labels, from logits
        loss=cl.losses.BinaryFocal,
        oracle=classification.binary_focal,
        y_true=probabilities(4, 3, 2, seed=1),
        y_pred=probabilities(4, 3, 2, seed=2),
        arguments={
            "gamma": 1.5,
            "alpha": [0.3, 0.8],
            "pos_weight": [2.0, 0.5],
            "label_smoothing": 0.2,
            "from_logits": True,
        },
        refused={
            "gamma": [-0.1, *NOT_A_NUMBER],
            "alpha": [-0.1, 1.1, [], [0.5, 1.1], [0.5, "1"], [[0.5]], *NOT_A_NUMBER[:-1]],
            "pos_weight": [0, -1.0, [], [1.0, 0.0], [1.0, float("nan")], *NOT_A_NUMBER[:-1]],
            "label_smoothing": NOT_SMOOTH,
            "from_logits": NOT_A_FLAG,
        },
    ),
    Case(
        loss=cl.losses.CategoricalFocal,
        oracle=classification.categorical_focal,
        y_true=probabilities(4, 3, CLASSES, seed=3),
        y_pred=probabilities(4, 3, CLASSES, seed=4),
        arguments={
            "gamma": 1.5,
            "class_weight": [0.5, 2.0, 0.0, 3.0],
            "label_smoothing": 0.2,
            "from_logits": True,
            "multilabel": True,
        },
        refused={
            "gamma": [-0.1, *NOT_A_NUMBER],
            "class_weight": NOT_WEIGHTS,
            "label_smoothing": NOT_SMOOTH,
            "from_logits": NOT_A_FLAG,
            "multilabel": NOT_A_FLAG,
        },
    ),
    Case(
        loss=cl.losses.SparseCategoricalFocal,
        oracle=classification.sparse_categorical_focal,
        y_true=labels(4, 3, seed=5),
        y_pred=probabilities(4, 3, CLASSES, seed=6),
        arguments={
            "gamma": 0.5,
            "class_weight": [0.5, 2.0, 0.0, 3.0],
            "label_smoothing": 0.3,
            "from_logits": True,
        },
        refused={
            "gamma": [-0.1, *NOT_A_NUMBER],
            "class_weight": NOT_WEIGHTS,
            "label_smoothing": NOT_SMOOTH,
            "from_logits": NOT_A_FLAG,
        },
        perfect=one_hot,
    ),
    Case(
        loss=cl.losses.AsymmetricFocal,
        oracle=classification.asymmetric_focal,
        y_true=probabilities(4, 3, 2, seed=21),
        y_pred=probabilities(4, 3, 2, seed=22),
        arguments={
            "gamma_pos": 0.5,
            "gamma_neg": 1.5,
            "margin": 0.2,
            "label_smoothing": 0.1,
            "from_logits": True,
        },
        refused={
            "gamma_pos": [-0.1, *NOT_A_NUMBER],
            "gamma_neg": [-0.1, *NOT_A_NUMBER],
            "margin": [-0.1, 1.0, *NOT_A_NUMBER],
            "label_smoothing": NOT_SMOOTH,
            "from_logits": NOT_A_FLAG,
        },
    ),
    Case(
        loss=cl.losses.PolyCrossEntropy,
        oracle=classification.poly_cross_entropy,
        y_true=probabilities(4, 3, CLASSES, seed=23),
        y_pred=probabilities(4, 3, CLASSES, seed=24),
        arguments={
            "epsilon": -0.5,
            "class_weight": [0.5, 2.0, 0.0, 3.0],
            "label_smoothing": 0.1,
            "from_logits": True,
            "multilabel": True,
        },
        refused={
            "epsilon": [-1.1, *NOT_A_NUMBER],
            "class_weight": NOT_WEIGHTS,
            "label_smoothing": NOT_SMOOTH,
            "from_logits": NOT_A_FLAG,
            "multilabel": NOT_A_FLAG,
        },
    ),
    Case(
        loss=cl.losses.QualityFocal,
        oracle=classification.quality_focal,
        y_true=probabilities(4, 3, 2, seed=31),
        y_pred=probabilities(4, 3, 2, seed=32),
        arguments={"beta": 1.5, "from_logits": True},
        refused={"beta": [-0.1, *NOT_A_NUMBER], "from_logits": NOT_A_FLAG},
    ),
    Case(
        loss=cl.losses.Varifocal,
        oracle=classification.varifocal,
        y_true=qualities(4, 3, 2, seed=33),
        y_pred=probabilities(4, 3, 2, seed=34),
        arguments={"alpha": 0.25, "gamma": 1.5, "from_logits": True},
        refused={
            "alpha": [-0.1, *NOT_A_NUMBER],
            "gamma": [-0.1, *NOT_A_NUMBER],
            "from_logits": NOT_A_FLAG,
        },
    ),
    Case(
        loss=cl.losses.WeightedKappa,
        oracle=classification.weighted_kappa,
        y_true=np.array([3, 0, 1, 3]),
        y_pred=probabilities(4, CLASSES, seed=7),
        required={"num_classes": CLASSES},
        arguments={"power": 1},
        refused={"num_classes": [1, 0, -3, 2.0, *NOT_A_NUMBER], "power": [0, -1, *NOT_A_NUMBER]},
        perfect=one_hot,
    ),
]

VARIANTS = [
    Case(  # of numbers, as no list
        label="numbers",
        loss=cl.losses.BinaryFocal,
        oracle=classification.binary_focal,
        y_true=probabilities(4, 3, 2, seed=11),
        y_pred=probabilities(4, 3, 2, seed=12),
        arguments={"gamma": 0.5, "alpha": 0.3, "pos_weight": 2.5, "label_smoothing": 0.1},
    ),
    Case(
        label="softmax",
        loss=cl.losses.CategoricalFocal,
        oracle=classification.categorical_focal,
        y_true=probabilities(4, 3, CLASSES, seed=13),
        y_pred=probabilities(4, 3, CLASSES, seed=14),
        arguments={
            "class_weight": [0.5, 2.0, 0.0, 3.0],
            "label_smoothing": 0.3,
            "from_logits": True,
        },
    ),
    Case(
        label="softmax",
        loss=cl.losses.PolyCrossEntropy,
        oracle=classification.poly_cross_entropy,
        y_true=probabilities(4, 3, CLASSES, seed=25),
        y_pred=probabilities(4, 3, CLASSES, seed=26),
        arguments={"epsilon": 2.0, "label_smoothing": 0.3, "from_logits": True},
    ),
]
