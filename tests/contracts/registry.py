"""One case for every class of `combined_losses.losses`: all that a new loss has to add here."""

import dataclasses
from collections.abc import Callable

import numpy as np

import combined_losses as cl
from tests.oracles import boundaries, regression


@dataclasses.dataclass(frozen=True)
class Case:
    """
    Args:
        loss: the class.
        oracle: its float64 twin, `(y_true, y_pred, **arguments) -> values, gradient`.
        y_true, y_pred: a batch of at least four samples in the domain, away from kinks and ties.
        arguments: every argument of the class, off its default.
        refused: values that the constructor must refuse, for each argument that has a domain.
    """

    loss: type
    oracle: Callable
    y_true: np.ndarray
    y_pred: np.ndarray
    arguments: dict = dataclasses.field(default_factory=dict)
    refused: dict = dataclasses.field(default_factory=dict)


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


NOT_A_NUMBER = [float("nan"), float("inf"), True, "1", None]

CASES = [
    Case(
        loss=cl.losses.UnderestimationPenalty,
        oracle=regression.underestimation_penalty,
        y_true=normal(4, 3, 2, seed=1),
        y_pred=normal(4, 3, 2, seed=2),
        arguments={"weight": 3.5},
        refused={"weight": [-0.1, *NOT_A_NUMBER]},
    ),
    Case(
        loss=cl.losses.AsymmetricError,
        oracle=regression.asymmetric_error,
        y_true=normal(4, 3, 2, seed=3),
        y_pred=normal(4, 3, 2, seed=4),
        arguments={"under_weight": 0.3, "over_weight": 5.0, "power": 1.5},
        refused={
            "under_weight": [-0.1, *NOT_A_NUMBER],
            "over_weight": [-0.1, *NOT_A_NUMBER],
            "power": [0.99, -2.0, *NOT_A_NUMBER],
        },
    ),
    Case(
        loss=cl.losses.BoundaryDisagreement,
        oracle=boundaries.boundary_disagreement,
        y_true=normal(4, 3, 5, 2, seed=5),
        y_pred=normal(4, 3, 5, 2, seed=6),
        arguments={"axes": (2, 3)},
        refused={"axes": [(), (0, 1), (0,), 1, "12", (1.0, 2.0), (True,), None]},
    ),
]
