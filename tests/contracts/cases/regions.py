"""Cases of `combined_losses.losses.regions`.

Every fifth pixel is void: 0.5 in all channels, which is also a truth that a loss can take.
"""

import dataclasses

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import regions

NOT_A_FLAG = [0, 1, None, "yes"]
NOT_SMOOTH = [-0.1, *NOT_A_NUMBER]
NOT_WEIGHTS = [2.0, "1", [], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [[1.0]], [True]]
NOT_IGNORED = ["void", True, float("inf"), [255]]
VOID = 0.5

NOT_OVER = ["Batch", "", None, 1]

CLASS_WEIGHT = [0.5, 2.0, 3.0]
MASKS = {"from_logits": True, "multilabel": True, "ignore_value": VOID}
COUNTED = {"smooth": 2.5, "include_background": False, "power": 2, "log": True, **MASKS}
OVERLAP = {"class_weight": CLASS_WEIGHT, **COUNTED}
# `classes` and `include_background` exclude each other.
BATCH = {"over": "batch", "ignore_value": VOID}
COUNTED_OF_BATCH = {"classes": [2, 0], "from_logits": True, "log": True, **BATCH}
NOT_MASKS = {
    "from_logits": NOT_A_FLAG,
    "multilabel": NOT_A_FLAG,
    "ignore_value": NOT_IGNORED,
    "over": NOT_OVER,
}
NOT_COUNTED = {
    "smooth": NOT_SMOOTH,
    "include_background": NOT_A_FLAG,
    "power": [0, 3, 1.5, -2, *NOT_A_NUMBER],
    "log": NOT_A_FLAG,
    "classes": [[], [0, 0], [-1], [1.0], [True], 1, "01"],
    **NOT_MASKS,
}
REFUSED = {"class_weight": NOT_WEIGHTS, **NOT_COUNTED}
PRICES = {"fp_weight": [-0.1, *NOT_A_NUMBER], "fn_weight": [-0.1, *NOT_A_NUMBER]}


def truth(*shape, seed):
    """One-hot class maps; of one channel, masks."""
    random, classes = np.random.default_rng(seed), max(shape[-1], 2)
    labels = random.integers(0, classes, shape[:-1])
    y_true = np.eye(classes, dtype="float32")[labels][..., -shape[-1] :]
    y_true[np.arange(labels.size).reshape(labels.shape) % 5 == 2] = VOID
    return y_true


def probabilities(*shape, seed):
    """No two of a sample and channel are alike, nor their softmaxes; all are off 0 and 1."""
    random, pixels = np.random.default_rng(seed), int(np.prod(shape[1:-1]))
    ranks = random.permuted(np.tile(np.arange(pixels), (shape[0], shape[-1], 1)), axis=-1)
    levels = 0.02 + 0.95 * (ranks + random.uniform(0, 0.5, ranks.shape)) / pixels
    return np.moveaxis(levels, 1, -1).reshape(shape).astype("float32")


CASES = [
    Case(
        loss=cl.losses.Dice,
        oracle=regions.dice,
        y_true=truth(4, 3, 4, 3, seed=1),
        y_pred=probabilities(4, 3, 4, 3, seed=2),
        arguments=OVERLAP,
        refused=REFUSED,
    ),
    Case(
        loss=cl.losses.Jaccard,
        oracle=regions.jaccard,
        y_true=truth(4, 3, 4, 3, seed=3),
        y_pred=probabilities(4, 3, 4, 3, seed=4),
        arguments=OVERLAP,
        refused=REFUSED,
    ),
    Case(
        loss=cl.losses.Tversky,
        oracle=regions.tversky,
        y_true=truth(4, 3, 4, 3, seed=5),
        y_pred=probabilities(4, 3, 4, 3, seed=6),
        arguments={"fp_weight": 0.2, "fn_weight": 1.5, **OVERLAP},
        refused={**PRICES, **REFUSED},
    ),
    Case(
        loss=cl.losses.FocalTversky,
        oracle=regions.focal_tversky,
        y_true=truth(4, 3, 4, 3, seed=7),
        y_pred=probabilities(4, 3, 4, 3, seed=8),
        arguments={"gamma": 1.6, "fp_weight": 0.2, "fn_weight": 1.5, **OVERLAP},
        refused={"gamma": [0, -1.0, *NOT_A_NUMBER], **PRICES, **REFUSED},
    ),
    Case(
        loss=cl.losses.GeneralizedDice,
        oracle=regions.generalized_dice,
        y_true=truth(4, 3, 4, 3, seed=9),
        y_pred=probabilities(4, 3, 4, 3, seed=10),
        arguments={"weighting": "simple", **COUNTED},
        refused={"weighting": ["cube", "", None, 2], **NOT_COUNTED},
    ),
    Case(
        loss=cl.losses.LovaszHinge,
        oracle=regions.lovasz_hinge,
        y_true=truth(4, 3, 4, 2, seed=11),
        y_pred=normal(4, 3, 4, 2, seed=12),
        arguments={"ignore_value": VOID},
        refused={"ignore_value": NOT_IGNORED, "over": NOT_OVER},
        perfect=lambda y_true: 4 * y_true - 2,
    ),
    Case(
        loss=cl.losses.LovaszSoftmax,
        oracle=regions.lovasz_softmax,
        y_true=truth(4, 3, 4, 3, seed=13),
        y_pred=probabilities(4, 3, 4, 3, seed=14),
        arguments=MASKS,
        refused=NOT_MASKS,
    ),
    Case(
        loss=cl.losses.CenterlineDice,
        oracle=regions.centerline_dice,
        y_true=truth(4, 5, 6, 2, seed=15),
        y_pred=probabilities(4, 5, 6, 2, seed=16),
        arguments={"iterations": 1, "smooth": 0.3, **MASKS},
        refused={
            "iterations": [0, -1, 2.0, *NOT_A_NUMBER],
            "smooth": [0, *NOT_SMOOTH],
            **NOT_MASKS,
        },
    ),
    Case(
        loss=cl.losses.MatthewsCorrelation,
        oracle=regions.matthews_correlation,
        y_true=truth(4, 3, 4, 3, seed=17),
        y_pred=probabilities(4, 3, 4, 3, seed=18),
        arguments={key: value for key, value in OVERLAP.items() if key not in ("power", "log")},
        fixed=("power",),
        refused={**REFUSED, "power": [2, *REFUSED["power"]]},
    ),
]


def _of_batch(case, arguments):
    """The same loss once for the whole batch."""
    return dataclasses.replace(case, label="batch", arguments=arguments, refused={}, fixed=())


def _of_batches():
    own = {
        cl.losses.LovaszHinge: BATCH,
        cl.losses.LovaszSoftmax: {**BATCH, "from_logits": True},
        cl.losses.CenterlineDice: {**BATCH, "from_logits": True},
        cl.losses.MatthewsCorrelation: {**BATCH, "classes": [2, 0], "from_logits": True},
    }
    for case in CASES:
        yield _of_batch(case, own.get(case.loss, COUNTED_OF_BATCH))
    # A prediction that is better than chance: the logarithm is steep elsewhere.
    yield dataclasses.replace(
        CASES[-1],
        label="log",
        y_pred=(0.5 * CASES[-1].y_true + 0.5 * CASES[-1].y_pred).astype("float32"),
        arguments={"log": True, "ignore_value": VOID},
        refused={},
        fixed=(),
    )


VARIANTS = [*_of_batches()]
