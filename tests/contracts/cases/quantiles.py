"""Cases of `combined_losses.losses.quantiles`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import regression


def of_three(parts):
    return Case(
        loss=cl.losses.Pinball,
        oracle=regression.pinball,
        y_true=normal(4, 3, 1, seed=7),
        y_pred=normal(4, 3, 3, seed=8),
        required={"quantile": [0.1, 0.7, 0.95], "parts": parts},
        perfect=lambda y_true: np.repeat(y_true, 3, axis=-1),
    )


CASES = [
    Case(
        loss=cl.losses.Pinball,
        oracle=regression.pinball,
        y_true=normal(4, 3, 2, seed=5),
        y_pred=normal(4, 3, 2, seed=6),
        arguments={"quantile": 0.9},
        required={"parts": False},  # it changes what is reported, and no number
        refused={
            "quantile": [0, 1, -0.1, 1.5, [], [0.5, 1.0], (0.0,), [[0.5]], ["a"], *NOT_A_NUMBER]
        },
        wrapped=True,
    ),
    of_three(parts=False),
    of_three(parts=True),
    Case(
        loss=cl.losses.QuantileCRPS,
        oracle=regression.quantile_crps,
        y_true=normal(4, 3, 1, seed=9),
        y_pred=normal(4, 3, 3, seed=10),
        required={"quantiles": [0.1, 0.7, 0.95]},
        refused={"quantiles": [[], [0.5, 0.5], [0.7, 0.2], [0.0, 0.5], [0.5, 1], 0.5, ["a"], None]},
        perfect=lambda y_true: np.repeat(y_true, 3, axis=-1),
    ),
]
