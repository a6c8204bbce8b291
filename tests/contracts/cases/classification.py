"""Cases of `combined_losses.losses.classification`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import classification

NOT_WEIGHTS = [2.0, "1", [], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [[1.0]], [True]]
NOT_A_FLAG = [0, 1, None, "yes"]
NOT_SMOOTH = [-0.1, 1.0, 2, *NOT_A_NUMBER]
NOT_OVER = ["pixel", "", None, 1, True]
NOT_A_COUNT = [0, -1, 2.0, True, "2", None]
NOT_LEVELS = [[], [[]], [0, 0, 1, 1], [[0, 1], [0]], [[0.0, 1.0]], [["a", "b"]], None, 3]
CLASSES = 4


def probabilities(*shape, seed):
    """Away from 0 and 1, of sum 1 over the last axis where that is of length 2 or more."""
    shares = np.random.default_rng(seed).uniform(0.1, 0.9, shape)
    return (shares / (shares.sum(-1, keepdims=True) if shape[-1] > 1 else 1)).astype("float32")


def qualities(*shape, seed):
    """Half of them 0: no object."""
    return np.maximum(np.random.default_rng(seed).uniform(-1, 1, shape), 0).astype("float32")


def answers(*shape, seed):
    """Probabilities that are independent of each other."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape).astype("float32")


def cosines(*shape, seed):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype("float32")


def nearest_centre(labels):
    """At the first of the two centres of its class, and opposite to all others."""
    own = 2 * np.asarray(labels, int)[..., None]
    return np.where(np.arange(4) == own, 1.0, -1.0).astype("float32")


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
        refused={
            "num_classes": [1, 0, -3, 2.0, *NOT_A_NUMBER],
            "power": [0, -1, *NOT_A_NUMBER],
            "over": NOT_OVER,
        },
        perfect=one_hot,
        repeats=False,
    ),
    Case(
        loss=cl.losses.Ordinal,
        oracle=classification.ordinal,
        y_true=labels(4, 3, seed=41),
        y_pred=answers(4, 3, CLASSES - 1, seed=42),
        arguments={"method": "corn", "importance": [0.5, 2.0, 0.0], "from_logits": True},
        refused={
            "method": ["CORN", "", None, 1, ["corn"]],
            "importance": NOT_WEIGHTS,
            "from_logits": NOT_A_FLAG,
        },
        perfect=lambda y_true: np.float32(np.asarray(y_true)[..., None] > np.arange(CLASSES - 1)),
    ),
    Case(
        loss=cl.losses.ArcFace,
        oracle=classification.arc_face,
        y_true=np.random.default_rng(43).integers(0, 2, (4, 3)),
        y_pred=cosines(4, 3, 4, seed=44),
        arguments={"margin": 0.3, "scale": 8.0, "subcenters": 2},
        refused={
            "margin": [-0.1, 1.6, *NOT_A_NUMBER],
            "scale": [0.0, -1.0, *NOT_A_NUMBER],
            "subcenters": NOT_A_COUNT,
        },
        perfect=nearest_centre,
    ),
    Case(
        loss=cl.losses.CosFace,
        oracle=classification.cos_face,
        y_true=np.random.default_rng(45).integers(0, 2, (4, 3)),
        y_pred=cosines(4, 3, 4, seed=46),
        arguments={"margin": 0.2, "scale": 8.0, "subcenters": 2},
        refused={
            "margin": [-0.1, *NOT_A_NUMBER],
            "scale": [0.0, -1.0, *NOT_A_NUMBER],
            "subcenters": NOT_A_COUNT,
        },
        perfect=nearest_centre,
    ),
    Case(
        loss=cl.losses.TreeCrossEntropy,
        oracle=classification.tree_cross_entropy,
        y_true=labels(4, 3, seed=47),
        y_pred=probabilities(4, 3, CLASSES, seed=48),
        required={"levels": [[3, 3, 7, 5], [0, 0, 0, 1]]},
        arguments={"decay": -0.3, "from_logits": True},
        refused={
            "levels": NOT_LEVELS,
            "decay": [-11, *NOT_A_NUMBER],
            "from_logits": NOT_A_FLAG,
        },
        perfect=one_hot,
    ),
    Case(
        loss=cl.losses.SparseCrossEntropy,
        oracle=classification.sparse_cross_entropy,
        y_true=labels(4, 3, seed=61),
        y_pred=probabilities(4, 3, CLASSES, seed=62),
        arguments={"label_smoothing": 0.3, "from_logits": True},
        fixed=("ignore_class",),  # a mask on the values: tests/losses/test_tokens.py
        refused={
            "label_smoothing": NOT_SMOOTH,
            "ignore_class": [1.0, True, "1", [1], float("nan")],
            "from_logits": NOT_A_FLAG,
        },
        perfect=one_hot,
    ),
    Case(
        loss=cl.losses.ZLoss,
        oracle=classification.z_loss,
        y_true=labels(4, 3, seed=63),
        y_pred=normal(4, 3, CLASSES, seed=64),
        perfect=one_hot,
    ),
    Case(
        loss=cl.losses.Distillation,
        oracle=classification.distillation,
        y_true=normal(4, 3, CLASSES, seed=65),
        y_pred=normal(4, 3, CLASSES, seed=66),
        arguments={"temperature": 3.0},
        refused={"temperature": [0, -1.0, *NOT_A_NUMBER]},
    ),
]

VARIANTS = [
    Case(
        label="maps",
        loss=cl.losses.WeightedKappa,
        oracle=classification.weighted_kappa,
        y_true=labels(4, 3, 2, seed=49),
        y_pred=probabilities(4, 3, 2, CLASSES, seed=50),
        required={"num_classes": CLASSES},
        arguments={"power": 1.5},
        perfect=one_hot,
        repeats=False,
    ),
    Case(
        label="sequences",
        loss=cl.losses.WeightedKappa,
        oracle=classification.weighted_kappa,
        y_true=labels(4, 5, seed=51),
        y_pred=probabilities(4, 5, CLASSES, seed=52),
        required={"num_classes": CLASSES},
        arguments={"over": "sample"},
        perfect=one_hot,
    ),
    Case(
        label="probabilities",
        loss=cl.losses.SparseCrossEntropy,
        oracle=classification.sparse_cross_entropy,
        y_true=labels(4, seed=67),
        y_pred=probabilities(4, CLASSES, seed=68),
        arguments={"label_smoothing": 0.1},
        perfect=one_hot,
    ),
    Case(
        label="coral",
        loss=cl.losses.Ordinal,
        oracle=classification.ordinal,
        y_true=labels(4, seed=53),
        y_pred=answers(4, CLASSES - 1, seed=54),
        arguments={"importance": [0.5, 2.0, 0.0]},
        perfect=lambda y_true: np.float32(np.asarray(y_true)[..., None] > np.arange(CLASSES - 1)),
    ),
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
