"""Cases of `combined_losses.losses.regression`."""

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import regression

CASES = [
    Case(
        loss=cl.losses.UnderestimationPenalty,
        oracle=regression.underestimation_penalty,
        y_true=normal(4, 3, 2, seed=1),
        y_pred=normal(4, 3, 2, seed=2),
        arguments={"weight": 3.5},
        refused={"weight": [-0.1, *NOT_A_NUMBER]},
        wrapped=True,
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
        wrapped=True,
    ),
    Case(
        loss=cl.losses.Expectile,
        oracle=regression.expectile,
        y_true=normal(4, 3, 2, seed=9),
        y_pred=normal(4, 3, 2, seed=10),
        arguments={"expectile": 0.8},
        refused={"expectile": [0, 1, -0.1, 1.5, [0.5], *NOT_A_NUMBER]},
        wrapped=True,
    ),
    Case(
        loss=cl.losses.Linex,
        oracle=regression.linex,
        y_true=normal(4, 3, 2, seed=11),
        y_pred=normal(4, 3, 2, seed=12),
        arguments={"sharpness": -1.7},
        refused={"sharpness": [0, 0.0, 1e-16, -1e16, *NOT_A_NUMBER]},
        wrapped=True,
    ),
    Case(
        loss=cl.losses.Charbonnier,
        oracle=regression.charbonnier,
        y_true=normal(4, 3, 2, seed=13),
        y_pred=normal(4, 3, 2, seed=14),
        arguments={"epsilon": 0.3},
        refused={"epsilon": [0, -1e-3, 1e-20, *NOT_A_NUMBER]},
        wrapped=True,
    ),
]
