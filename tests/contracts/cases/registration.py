"""Cases of the losses of `combined_losses.losses.images` that register images."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.contracts.cases.contours import NOT_SPACED
from tests.contracts.cases.images import photographs
from tests.oracles import registration

CASES = [
    Case(
        loss=cl.losses.BendingEnergy,
        oracle=registration.bending_energy,
        y_true=np.zeros((4, 5, 4, 2), "float32"),
        y_pred=normal(4, 5, 4, 2, seed=70),
        arguments={"spacing": [2.0, 0.7]},
        refused={"spacing": NOT_SPACED},
    ),
    Case(
        loss=cl.losses.Diffusion,
        oracle=registration.diffusion,
        y_true=np.zeros((4, 5, 4, 2), "float32"),
        y_pred=normal(4, 5, 4, 2, seed=71),
        arguments={"spacing": [2.0, 0.7]},
        refused={"spacing": NOT_SPACED},
    ),
    Case(
        loss=cl.losses.LocalCrossCorrelation,
        oracle=registration.local_cross_correlation,
        **photographs(4, 10, 9, 2, seed=72),
        arguments={"window": 3, "epsilon": 1e-3},
        refused={
            "window": [0, 1, -3, 4, 5.0, 5.5, True, "5", None, (5, 5)],
            "epsilon": [0, -1e-5, *NOT_A_NUMBER],
        },
    ),
    Case(
        loss=cl.losses.MutualInformation,
        oracle=registration.mutual_information,
        **photographs(4, 5, 6, 2, seed=73),
        arguments={"bins": 7, "sigma_ratio": 0.8, "low": -0.3, "high": 1.4},
        refused={
            "bins": [0, 1, -3, 8.0, True, "8", None, 2**20],
            "sigma_ratio": [0, -0.5, *NOT_A_NUMBER],
            "low": NOT_A_NUMBER,
            "high": [0.0, -1.0, *NOT_A_NUMBER],
        },
    ),
]
