"""Cases of `combined_losses.losses.boundaries`."""

import combined_losses as cl
from tests.contracts.case import Case, normal
from tests.oracles import boundaries

CASES = [
    Case(
        loss=cl.losses.BoundaryDisagreement,
        oracle=boundaries.boundary_disagreement,
        y_true=normal(4, 3, 5, 2, seed=5),
        y_pred=normal(4, 3, 5, 2, seed=6),
        arguments={"axes": (2, 3)},
        refused={"axes": [(), (0, 1), (0,), 1, "12", (1.0, 2.0), (True,), None]},
        wrapped=True,
    ),
]
