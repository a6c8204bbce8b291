"""Cases of `combined_losses.losses.boundaries`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import boundaries

NOT_A_FLAG = [0, 1, None, "yes"]
NOT_SQUARE = [[1.0, 0.0, 0.5], [0.0, -1.0, -0.25]]


def mask(*shape, seed):
    """Zeros and ones, about as many of each."""
    return np.random.default_rng(seed).integers(0, 2, shape).astype("float32")


CASES = [
    Case(
        loss=cl.losses.BoundaryDisagreement,
        oracle=boundaries.boundary_disagreement,
        y_true=normal(4, 3, 5, 2, seed=5),
        y_pred=normal(4, 3, 5, 2, seed=6),
        arguments={"axes": (2, 3)},
        refused={"axes": [(), (0, 1), (0,), 1, "12", (1.0, 2.0), (True,)]},
        wrapped=True,
    ),
    Case(
        loss=cl.losses.SobelEdge,
        oracle=boundaries.sobel_edge,
        y_true=normal(4, 4, 5, 2, seed=7),
        y_pred=normal(4, 4, 5, 2, seed=8),
        arguments={"kernel": NOT_SQUARE},
        refused={
            "kernel": [
                [],
                [[]],
                [[0.0, 0.0]],
                [1.0, -1.0],
                [[1.0, float("nan")]],
                [[1.0], [1.0, 2.0]],
                1.0,
                "a",
            ]
        },
    ),
    Case(  # numbers as probabilities: the loss is linear in them
        loss=cl.losses.SignedDistanceBoundary,
        oracle=boundaries.signed_distance_boundary,
        y_true=mask(4, 4, 5, 2, seed=9),
        y_pred=normal(4, 4, 5, 2, seed=10),
        arguments={"from_logits": True, "multilabel": True},
        refused={"from_logits": NOT_A_FLAG, "multilabel": NOT_A_FLAG},
    ),
    Case(
        loss=cl.losses.HausdorffDistance,
        oracle=boundaries.hausdorff_distance,
        y_true=mask(4, 4, 5, 2, seed=11),
        y_pred=normal(4, 4, 5, 2, seed=12),
        arguments={"alpha": 1.3, "from_logits": True, "multilabel": True},
        refused={
            "alpha": [0, -1.0, *NOT_A_NUMBER],
            "from_logits": NOT_A_FLAG,
            "multilabel": NOT_A_FLAG,
        },
    ),
]
