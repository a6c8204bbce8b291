"""Cases of `combined_losses.losses.contours`."""

import dataclasses

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import boundaries

NOT_A_FLAG = [0, 1, None, "yes"]
NOT_SPACED = [0, -1.0, [], [1.0, 0.0], [1.0, float("nan")], [[1.0]], *NOT_A_NUMBER[:-1]]


def mask(*shape, seed):
    """Zeros and ones, about as many of each."""
    return np.random.default_rng(seed).integers(0, 2, shape).astype("float32")


CASES = [
    Case(  # numbers as probabilities: the loss is linear in them
        loss=cl.losses.SignedDistanceBoundary,
        oracle=boundaries.signed_distance_boundary,
        y_true=mask(4, 4, 5, 2, seed=9),
        y_pred=normal(4, 4, 5, 2, seed=10),
        arguments={"spacing": [2.0, 0.7], "from_logits": True, "multilabel": True},
        refused={
            "spacing": NOT_SPACED,
            "precomputed": NOT_A_FLAG,
            "from_logits": NOT_A_FLAG,
            "multilabel": NOT_A_FLAG,
        },
    ),
    Case(
        loss=cl.losses.HausdorffDistance,
        oracle=boundaries.hausdorff_distance,
        y_true=mask(4, 4, 5, 2, seed=11),
        y_pred=normal(4, 4, 5, 2, seed=12),
        arguments={"alpha": 1.3, "spacing": [0.4, 3.0], "from_logits": True, "multilabel": True},
        refused={
            "alpha": [0, -1.0, *NOT_A_NUMBER],
            "spacing": NOT_SPACED,
            "from_logits": NOT_A_FLAG,
            "multilabel": NOT_A_FLAG,
        },
    ),
]
VARIANTS = [
    dataclasses.replace(
        CASES[0],
        label="precomputed",
        y_true=normal(4, 4, 5, 2, seed=13),
        arguments={"precomputed": True, "from_logits": True},
        refused={},
    ),
]
