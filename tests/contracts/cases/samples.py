"""Cases of `combined_losses.losses.samples`."""

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import samples

OVER = {"over": ["rows", None, True]}
LINES = normal(5, 2, seed=1).tolist()

CASES = [
    Case(
        loss=cl.losses.MMD,
        oracle=samples.mmd,
        y_true=normal(4, 3, 2, seed=2),
        y_pred=normal(4, 3, 2, seed=3),
        arguments={"bandwidths": [0.5, 2.0], "unbiased": True, "over": "sample"},
        refused={
            "bandwidths": [[], [0.0], [1.0, -1.0], [float("nan")], 1.0, "a", None],
            "unbiased": [1, "yes", None],
            **OVER,
        },
    ),
    Case(
        loss=cl.losses.SlicedWasserstein,
        oracle=samples.sliced_wasserstein,
        y_true=normal(4, 3, 2, seed=4),
        y_pred=normal(4, 3, 2, seed=5),
        required={"projections": LINES},
        arguments={"power": 1, "over": "sample"},
        fixed=("seed",),
        refused={
            "projections": [0, -1, 1.5, [], [1.0], [[0.0, 0.0]], [[float("nan"), 1.0]], True, None],
            "power": [0, 3, 1.5, *NOT_A_NUMBER],
            "seed": [-1, 0.5, "a", True],
            **OVER,
        },
    ),
    Case(
        loss=cl.losses.Sinkhorn,
        oracle=samples.sinkhorn,
        y_true=normal(4, 3, 2, seed=6),
        y_pred=normal(4, 3, 2, seed=7),
        required={"epsilon": 2.0, "iterations": 200},
        arguments={"power": 1, "debias": False, "over": "sample"},
        refused={
            "epsilon": [0, -1.0, *NOT_A_NUMBER],
            "iterations": [0, 1.5, *NOT_A_NUMBER],
            "power": [0, 3, 1.5, *NOT_A_NUMBER],
            "debias": [1, "yes", None],
            **OVER,
        },
    ),
]

# The same, of the whole batch.
VARIANTS = [
    Case(
        loss=cl.losses.MMD,
        label="of the batch",
        oracle=samples.mmd,
        y_true=normal(4, 2, 3, seed=8),
        y_pred=normal(4, 2, 3, seed=9),
        arguments={"bandwidths": [1.0, 3.0]},
    ),
    Case(
        loss=cl.losses.SlicedWasserstein,
        label="of the batch",
        oracle=samples.sliced_wasserstein,
        y_true=normal(4, 2, seed=10),
        y_pred=normal(4, 2, seed=11),
        required={"projections": LINES},
        arguments={"power": 1},
    ),
    Case(
        loss=cl.losses.Sinkhorn,
        label="of the batch",
        oracle=samples.sinkhorn,
        y_true=normal(4, 3, seed=12),
        y_pred=normal(4, 3, seed=13),
        required={"epsilon": 2.0, "iterations": 200},
        arguments={"power": 1},
    ),
]
