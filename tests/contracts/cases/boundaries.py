"""Cases of `combined_losses.losses.boundaries`."""

import combined_losses as cl
from tests.contracts.case import Case, normal
from tests.oracles import boundaries

NOT_SQUARE = [[1.0, 0.0, 0.5], [0.0, -1.0, -0.25]]


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
]
